package fsck

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// reread goes through the newest commit once more, as a bare device would that has
// nothing else, and has each directory and file compared with what go-unixfsnode
// sees in the same blocks: what our writer and our reader both get wrong is found
// while the tables still know better.
func (c *checker) reread(ctx context.Context) error {
	newest, _ := c.reader.Commit()
	if newest == nil {
		return nil
	}
	c.step("reading the newest commit again", newest.Files)
	root, err := newest.RootRecord()
	if err != nil {
		c.problem("/", err)
		return nil
	}
	if err := c.rereadDir(ctx, root.Content, "/"); err != nil {
		return err
	}
	return c.rereadLinked(ctx, newest.Links)
}

// folder is a directory in a directory.
type folder struct {
	root link.Link
	path string
}

// rereadDir compares a directory and all below it.
func (c *checker) rereadDir(ctx context.Context, root link.Link, path string) error {
	var subs []folder
	err := dag.CheckDir(ctx, c.reader, c.drive.Names, root, func(name string, rec dag.Inode) error {
		switch {
		case rec.Mode&dag.ModeType == dag.ModeDirectory:
			subs = append(subs, folder{rec.Content, path + name + "/"})
		case rec.Linked: // its record is in the table
		default:
			return c.rereadFile(ctx, rec, path+name)
		}
		return nil
	})
	if err := c.compared(ctx, path, err); err != nil {
		return err
	}
	for _, s := range subs {
		if err := c.rereadDir(ctx, s.root, s.path); err != nil {
			return err
		}
	}
	return nil
}

// rereadLinked compares the table of the inodes with several links, and these.
func (c *checker) rereadLinked(ctx context.Context, root link.Link) error {
	err := dag.CheckDir(ctx, c.reader, c.drive.Names, root, func(_ string, rec dag.Inode) error {
		return c.rereadFile(ctx, rec, c.drive.Tree.Path(tree.Ino(rec.ID)))
	})
	if err == nil {
		return nil // the table is no file
	}
	return c.compared(ctx, "files with several hard links", err)
}

// rereadFile compares a file.
func (c *checker) rereadFile(ctx context.Context, rec dag.Inode, path string) error {
	var err error
	if !rec.Content.IsZero() {
		err = dag.CheckFile(ctx, c.reader, dag.File{Root: rec.Content, Size: rec.Size})
	}
	return c.compared(ctx, path, err)
}

// compared counts what a comparison found. It fails only when the check is to end.
func (c *checker) compared(ctx context.Context, path string, err error) error {
	c.did(1)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		c.r.Reread++
	case c.onlyAway(err):
		c.r.RereadAway++
	default:
		c.problem(path, fmt.Errorf("as it is in the newest commit: %w", err))
	}
	return nil
}

// sampleSize is how many bytes of a file are compared at one place.
const sampleSize = 4 << 10

// samples compares what programs read of a file with what go-unixfsnode reads of it
// from holders: over a border of two chunks, if it has several, and at the end.
func (c *checker) samples(ctx context.Context, f *tree.File, content dag.File) error {
	theirs, err := dag.OpenFile(ctx, c.reader, content)
	if err != nil {
		return err
	}
	border := content.Size / 2 / dag.ChunkSize * dag.ChunkSize
	for _, at := range []int64{border - sampleSize/2, content.Size - sampleSize} {
		at = max(0, at)
		ours, other := make([]byte, min(sampleSize, content.Size-at)), make([]byte, min(sampleSize, content.Size-at))
		if _, err := f.ReadAt(ctx, ours, at); err != nil {
			return err
		}
		if _, err := theirs.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(theirs, other); err != nil {
			return fmt.Errorf("as holders have it: %w", err)
		}
		if !bytes.Equal(ours, other) {
			return fmt.Errorf("the content from byte %d on %w, as holders have it", at, errDamaged)
		}
	}
	return nil
}
