package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/blocks"
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
	sent   []packID                  // the commit's own packs
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
	l, ok, err := t.e.find(prep.Tag())
	if err != nil {
		return commit.Locator{}, err
	}
	at, err := t.e.locate(commit.Locator{Link: l})
	if err != nil {
		return commit.Locator{}, err
	}
	if ok && at.Group != (group.ID{}) {
		return at, nil // as it was in an earlier commit
	}
	if len(t.f.refs) > 0 && t.f.links+len(refs) > blocks.MaxRefs {
		return commit.Locator{}, pack.ErrFull
	}
	prep.Compress(nil)
	s := prep.Seal(nil)
	off, err := t.f.b.Add(s)
	if err != nil {
		return commit.Locator{}, err
	}
	t.f.refs = append(t.f.refs, refs)
	t.f.links += len(refs)
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
	where, err := t.send(t.f)
	if err != nil {
		return p, err
	}
	p.sent = t.sent
	p.head = commit.Head{Drive: t.e.cfg.Drive, Device: p.commit.Device, Number: c.Number, Time: c.Time, Commit: at.In(where)}
	return p, nil
}

// spill stores blocks that a commit names by locators, one after the other. As long
// as they are few and small they wait for the commit's own pack; from then on all go
// into packs before it, so that not more than one is in memory.
type spill struct {
	t       *tailWriter
	waiting []plainBlock
	size    int // of what is waiting

	extra   *tailWriter // of the pack being filled; nil as long as all wait
	at      []commit.Locator
	pending []int // of at: those in extra
}

type plainBlock struct {
	plain []byte
	refs  []link.Link
}

func (s *spill) add(plain []byte, refs []link.Link) error {
	if s.extra == nil && len(s.waiting) < s.t.e.shape.named && s.size+len(plain) <= metadataClass.Size()/4 {
		s.waiting, s.size = append(s.waiting, plainBlock{plain, refs}), s.size+len(plain)
		return nil
	}
	if s.extra == nil {
		s.begin()
	}
	for _, w := range s.waiting {
		if err := s.put(w); err != nil {
			return err
		}
	}
	s.waiting = nil
	return s.put(plainBlock{plain, refs})
}

// begin opens another pack.
func (s *spill) begin() {
	s.extra = &tailWriter{e: s.t.e, ctx: s.t.ctx, f: &filling{kind: group.Metadata, b: pack.NewBuilder(metadataClass, nil)}}
}

func (s *spill) put(b plainBlock) error {
	l, err := s.extra.put(b.plain, b.refs)
	if errors.Is(err, pack.ErrFull) {
		if err := s.send(); err != nil {
			return err
		}
		s.begin()
		l, err = s.extra.put(b.plain, b.refs)
	}
	if err != nil {
		return err
	}
	if l.Group == (group.ID{}) {
		s.pending = append(s.pending, len(s.at))
	}
	s.at = append(s.at, l)
	return nil
}

// send ends a pack, unless nothing came to lie in it.
func (s *spill) send() error {
	if len(s.pending) == 0 {
		return nil
	}
	where, err := s.t.send(s.extra.f)
	if err != nil {
		return err
	}
	for _, i := range s.pending {
		s.at[i] = s.at[i].In(where)
	}
	s.pending = nil
	return nil
}

// end returns where all blocks are; those that waited come into the commit's own
// pack.
func (s *spill) end() ([]commit.Locator, error) {
	for _, w := range s.waiting {
		l, err := s.t.put(w.plain, w.refs)
		if err != nil {
			return nil, err
		}
		s.at = append(s.at, l)
	}
	return s.at, s.send()
}

// send stores a pack of the commit's own.
func (t *tailWriter) send(f *filling) (commit.Locator, error) {
	where, err := newPacker(t.ctx, t.e).sendNow(f, nil)
	if err == nil {
		t.sent = append(t.sent, packID{where.Group, where.Number})
	}
	return where, err
}

// locate returns the newest place of a block that is named by a locator: that itself, if the
// account knows of none. Where the account cannot be read it fails, as that place may be
// given up after the commit.
func (e *Engine) locate(l commit.Locator) (commit.Locator, error) {
	b, ok, err := e.table.Get(l.Link.Hash)
	if err != nil || !ok || len(b.Places) == 0 {
		return l, err
	}
	p := b.Places[0]
	g, ok, err := e.table.Group(p.Group)
	if err != nil || !ok {
		return l, err
	}
	return commit.Locator{Group: p.Group, Number: p.Number, Class: g.Class, Coding: g.Coding,
		Offset: p.Offset, Length: p.Length, Link: l.Link}, nil
}
