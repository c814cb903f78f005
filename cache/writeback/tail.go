package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// tailWriter fills the last pack of a commit. Its blocks are never sought by
// the index but by locators, so that duplicates do not matter.
type tailWriter struct {
	e   *Engine
	f   *filling
	ctx context.Context

	idle   map[group.ID]group.Bitmap // packs that nothing needs once the commit is out
	listed map[group.ID]bool         // by the commit's group table
}

// errUnlisted says that a pack of a commit came to lie in a group that was founded
// after the group table had been written, as too few holders of another answered.
var errUnlisted = errors.New("the group table lacks a group")

// listsAll returns errUnlisted if the commit or its group table is in a group
// that the table lacks: nobody could renew or repair that, after a recovery.
func (t *tailWriter) listsAll(p complete) error {
	all := t.listed[p.head.Commit.Group]
	for _, l := range p.commit.Groups {
		all = all && t.listed[l.In(p.head.Commit).Group]
	}
	if !all {
		return errUnlisted
	}
	return nil
}

// put adds a block and returns its locator within the pack. Where the pack is
// full, it is sent and another begun.
func (t *tailWriter) put(plain []byte, refs []link.Link) (commit.Locator, error) {
	prep, err := t.e.sealer.Prepare(link.CBOR, plain)
	if err != nil {
		return commit.Locator{}, err
	}
	if l, ok, err := t.e.find(prep.Tag()); ok || err != nil {
		return t.e.locate(commit.Locator{Link: l}), err // as it was in an earlier commit
	}
	prep.Compress(nil)
	s := prep.Seal(nil)
	off, err := t.f.b.Add(s)
	if err != nil {
		return commit.Locator{}, err
	}
	t.f.refs = append(t.f.refs, refs)
	return commit.Locator{Offset: off, Length: uint32(len(s.Ciphertext)), Link: s.Link}, nil
}

// commit adds the signed commit and sends the pack.
func (t *tailWriter) commit(c commit.Commit) (complete, error) {
	p := complete{signed: c.Sign(t.e.cfg.Device)}
	var err error
	if p.commit, err = commit.Parse(p.signed); err != nil {
		return p, fmt.Errorf("BUG: writeback: %w", err)
	}
	refs, err := p.commit.Refs()
	if err != nil {
		return p, err
	}
	at, err := t.put(p.signed, refs)
	if err != nil {
		return p, err
	}
	where, err := newPacker(t.ctx, t.e).sendNow(t.f)
	if err != nil {
		return p, err
	}
	p.head = commit.Head{Drive: t.e.cfg.Drive, Device: p.commit.Device, Number: c.Number, Time: c.Time, Commit: at.In(where)}
	return p, nil
}

// pieces stores blocks that the commit names by locator. As many as fit go
// into the commit's own pack; what is more goes into packs before it.
func (t *tailWriter) pieces(plains [][]byte) ([]commit.Locator, error) {
	out := make([]commit.Locator, 0, len(plains))
	var extra *filling
	var pending []int
	send := func() error {
		if extra == nil {
			return nil
		}
		where, err := newPacker(t.ctx, t.e).sendNow(extra)
		if err != nil {
			return err
		}
		for _, i := range pending {
			out[i] = out[i].In(where)
		}
		extra, pending = nil, nil
		return nil
	}
	size := 0
	for _, p := range plains {
		size += len(p)
	}
	small := size <= metadataClass.Size()/4
	for _, p := range plains {
		if small {
			l, err := t.put(p, nil)
			if err != nil {
				return nil, err
			}
			out = append(out, l)
			continue
		}
		if extra == nil {
			extra = &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, nil)}
		}
		l, err := (&tailWriter{e: t.e, f: extra, ctx: t.ctx}).put(p, nil)
		if errors.Is(err, pack.ErrFull) {
			if err := send(); err != nil {
				return nil, err
			}
			extra = &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, nil)}
			l, err = (&tailWriter{e: t.e, f: extra, ctx: t.ctx}).put(p, nil)
		}
		if err != nil {
			return nil, err
		}
		pending = append(pending, len(out))
		out = append(out, l)
	}
	return out, send()
}

// locate returns the newest place of a block that is named by a locator.
func (e *Engine) locate(l commit.Locator) commit.Locator {
	b, ok, err := e.table.Get(l.Link.Hash)
	if err != nil || !ok || len(b.Places) == 0 {
		return l
	}
	p := b.Places[0]
	g, ok, err := e.table.Group(p.Group)
	if err != nil || !ok {
		return l
	}
	return commit.Locator{Group: p.Group, Number: p.Number, Class: g.Class, Coding: g.Coding,
		Offset: p.Offset, Length: p.Length, Link: l.Link}
}
