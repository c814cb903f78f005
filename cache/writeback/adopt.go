package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/blocks"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
)

// Adopt makes a commit the newest one of a device that has nothing else, or
// lost its index: the group table is entered, and the count of references
// begun, which the engine goes on with in the background.
func Adopt(st *state.Store, table *blocks.Table, h commit.Head, signed []byte, read func(commit.Locator) ([]byte, error)) error {
	c, err := commit.Parse(signed)
	if err != nil {
		return err
	}
	for _, l := range c.Groups {
		if err := adoptGroups(table, l.In(h.Commit), read); err != nil {
			return fmt.Errorf("group table: %w", err)
		}
	}
	own := []blockindex.Entry{entryAt(h.Commit)}
	for _, s := range c.Segments {
		for _, p := range s.Pieces {
			own = append(own, entryAt(p.At.In(h.Commit)))
		}
	}
	for _, g := range c.Groups {
		own = append(own, entryAt(g.In(h.Commit)))
	}
	if err := table.BeginRecount(own); err != nil {
		return err
	}
	var b state.Batch
	SaveCommit(&b, h, signed)
	b.Delete(refsKey)
	_, err = st.Apply(&b)
	return err
}

// Restore brings back what the tables held before their index was lost: the
// newest commit and what it had not taken are in the journal, the commit's
// metadata in packs that are kept as files, and the rest comes when looked at.
// The tree must not be open yet.
func Restore(ctx context.Context, st *state.Store, table *blocks.Table, reader *readthrough.Reader) error {
	c, at, ok, err := LoadCommit(st)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if !ok {
		return errors.New("restore: the index is lost, and the journal names no commit")
	}
	root, err := c.RootRecord()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := tree.Adopt(st, root, c.Files, c.Bytes); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	read := func(l commit.Locator) ([]byte, error) { return reader.At(ctx, l) }
	signed, err := read(at)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	h := commit.Head{Drive: c.Drive, Device: c.Device, Number: c.Number, Time: c.Time, Commit: at}
	if err := Adopt(st, table, h, signed, read); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

func entryAt(l commit.Locator) blockindex.Entry {
	return blockindex.Entry{Link: l.Link, Place: blockindex.Place{Group: l.Group, Number: l.Number, Offset: l.Offset, Length: l.Length}}
}

// adoptGroups enters one piece of the group table; groups that are known
// already are known better.
func adoptGroups(table *blocks.Table, at commit.Locator, read func(commit.Locator) ([]byte, error)) error {
	plain, err := read(at)
	if err != nil {
		return err
	}
	groups, err := commit.DecodeGroups(plain)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if _, known, err := table.Group(g.ID); err != nil {
			return err
		} else if known {
			continue
		}
		if err := table.PutGroup(g); err != nil {
			return err
		}
	}
	return nil
}
