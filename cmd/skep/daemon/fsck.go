package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/keyring"
	"skep/chunker/link"
	"skep/cmd/skep/home"
)

// FsckReport is what a check found.
type FsckReport struct {
	Directories int   `json:"directories"`
	Files       int   `json:"files"`
	Bytes       int64 `json:"bytes"`
	// Unchecked files have content here, and what it should be is with holders.
	Unchecked    int `json:"unchecked"`
	PackFiles    int `json:"pack_files"`
	HostedGroups int `json:"hosted_groups"`
	HostedShards int `json:"hosted_shards"`
	// What holders have, if they were asked: packs with fewer shards than they
	// should have, of these those with too few to be read; and the files in them.
	Packs            int       `json:"packs"`
	PacksBelowTarget int       `json:"packs_below_target"`
	PacksLost        int       `json:"packs_lost"`
	FilesBelowTarget int       `json:"files_below_target"`
	FilesLost        int       `json:"files_lost"`
	Problems         []Problem `json:"problems"`
}

// Problem is one thing that is not as it should be.
type Problem struct {
	What    string `json:"what"`
	Problem string `json:"problem"`
}

// FsckOptions say how much is checked, and whether damage is mended.
type FsckOptions struct {
	// Remote fetches what is only with holders, and asks them what they have.
	Remote bool
	// Repair lets go of what is damaged here and whole with holders.
	Repair bool
}

// Fsck checks the home of a daemon that does not run. What a damaged index can
// be made anew from, opening the home does; what is wrong after that is in the
// report.
func Fsck(ctx context.Context, h home.Dir, keys keyring.Local, opt FsckOptions) (FsckReport, error) {
	var r FsckReport
	d, err := Open(h, keys, nil, discard())
	if err != nil {
		return r, err
	}
	defer d.close()
	c := checker{d: d, r: &r, opt: opt, roots: map[link.Hash]string{}, parents: map[link.Hash]link.Hash{}}
	if err := c.hosted(ctx); err != nil || d.drive == nil {
		return r, err
	}
	if opt.Remote {
		if err := d.net.join(ctx); err != nil {
			return r, err
		}
		if err := c.askHolders(ctx); err != nil {
			return r, err
		}
	}
	for _, step := range []func(context.Context) error{
		c.rows,
		c.account,
		func(ctx context.Context) error { return c.dir(ctx, tree.Root, "/") },
		c.packFiles, // last: the others read from them
	} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	return r, nil
}

type checker struct {
	d   *Daemon
	r   *FsckReport
	opt FsckOptions

	survey *survey // nil: nobody was asked

	roots   map[link.Hash]string    // paths of directories and files, by the block that leads to all of theirs
	parents map[link.Hash]link.Hash // a block that refers to a block
}

// committed takes note of where the newest commit has a directory or a file.
func (c *checker) committed(ino tree.Ino, path string) {
	if l, err := c.d.drive.tree.Committed(ino); err == nil && !l.IsZero() {
		c.roots[l.Hash] = path
	}
}

// rows compares the rows of the tree with each other.
func (c *checker) rows(context.Context) error {
	return c.d.drive.tree.Audit(func(path, what string) { c.problem(path, errors.New(what)) })
}

func (c *checker) problem(path string, err error) {
	c.r.Problems = append(c.r.Problems, Problem{path, err.Error()})
}

// dir checks a directory and all below it. Directories that were never looked
// at are with holders only.
func (c *checker) dir(ctx context.Context, ino tree.Ino, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	here, err := c.d.drive.tree.IsLoaded(ino)
	if err != nil {
		c.problem(path, err)
		return nil
	}
	if !here && !c.opt.Remote {
		return nil
	}
	c.r.Directories++
	c.committed(ino, path)
	var subs []tree.DirEntry
	err = c.d.drive.tree.ReadDir(ctx, ino, 0, func(e tree.DirEntry) bool {
		switch e.Attr.Mode & 0o170000 {
		case 0o040000:
			subs = append(subs, e)
		case 0o100000:
			c.file(ctx, e.Attr.Ino, path+e.Name)
		default:
			c.r.Files++
		}
		return ctx.Err() == nil
	})
	if err != nil {
		c.problem(path, err)
	}
	for _, s := range subs {
		if err := c.dir(ctx, s.Attr.Ino, path+s.Name+"/"); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// file reads a file through the very code that programs read it through: what
// is here must be readable, what is not must match its hashes when fetched.
func (c *checker) file(ctx context.Context, ino tree.Ino, path string) {
	c.r.Files++
	s, err := c.d.drive.tree.ContentState(ctx, ino)
	if err != nil {
		c.problem(path, err)
		return
	}
	if err := c.content(ctx, ino, path); err != nil {
		c.problem(path, err)
		return
	}
	c.committed(ino, path)
	if !s.Dirty {
		c.redundancy(ctx, path, dag.File{Root: s.Content, Size: s.Size})
	}
	if s.Resident < s.Size && !c.opt.Remote {
		return
	}
	f, err := c.d.drive.tree.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		c.problem(path, err)
		return
	}
	defer f.Release()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < s.Size; {
		n, err := f.ReadAt(ctx, buf, off)
		if err == nil && n == 0 {
			err = fmt.Errorf("ends at %d of %d bytes", off, s.Size)
		}
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				c.problem(path, err)
			}
			return
		}
		off += int64(n)
		c.r.Bytes += int64(n)
	}
}
