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
	"skep/chunker/group"
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
	own := []blockindex.Entry{readthrough.EntryAt(h.Commit)}
	if err := beganPacks(table, h.Commit); err != nil {
		return err
	}
	for _, s := range c.Segments {
		for _, p := range s.Pieces {
			own = append(own, readthrough.EntryAt(p.At.In(h.Commit)))
		}
	}
	for _, g := range c.Groups {
		at := g.In(h.Commit)
		if err := beganPacks(table, at); err != nil {
			return err
		}
		own = append(own, readthrough.EntryAt(at))
	}
	if err := table.BeginRecount(own); err != nil {
		return err
	}
	var b state.Batch
	SaveCommit(&b, h, signed)
	_, err = st.Apply(&b)
	return err
}

// ErrNoState says that the tables hold nothing of a drive, not even that it is
// new: journal and index are gone.
var ErrNoState = errors.New("the local state of the drive is gone")

// Check refuses tables that hold nothing of a drive.
func Check(st *state.Store) error {
	counted, err := blocks.New(st).Counted()
	if err != nil || counted {
		return err
	}
	if _, known, err := st.Get(commitKey); err != nil || known {
		return err
	}
	return ErrNoState
}

// Restore brings back what the tables held before their index was lost: the
// newest commit, or the one that was about to be, and what it had not taken are
// in the journal, the commit's metadata in packs that are kept as files, and the
// rest comes when looked at. Where no commit was made yet, the journal has all.
// The tree must not be open yet. If Restore does not succeed, the index stays
// known as lost.
func Restore(ctx context.Context, st *state.Store, table *blocks.Table, reader *readthrough.Reader) error {
	if err := restore(ctx, st, table, reader); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return st.Restored()
}

func restore(ctx context.Context, st *state.Store, table *blocks.Table, reader *readthrough.Reader) error {
	p, ok, err := load(st, intendedKey)
	if err == nil && !ok {
		p, ok, err = load(st, commitKey)
	}
	if err != nil {
		return err
	}
	if !ok { // none was made yet: all is in the journal, but for what packs hold
		return table.BeginRecount(nil)
	}
	root, err := p.commit.RootRecord()
	if err != nil {
		return err
	}
	if err := tree.Adopt(st, root, p.commit.Files, p.commit.Bytes); err != nil {
		return err
	}
	read := func(l commit.Locator) ([]byte, error) { return reader.At(ctx, l) }
	return Adopt(st, table, p.head, p.signed, read)
}

// beganPacks enters the packs of a group up to the one with the group table or
// the commit itself, which were begun after the table was written.
func beganPacks(table *blocks.Table, at commit.Locator) error {
	return table.UpdateGroup(at.Group, func(g *group.Group) error {
		g.Packs = max(g.Packs, at.Number+1)
		return nil
	})
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
