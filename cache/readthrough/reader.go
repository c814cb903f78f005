package readthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
)

// Source reads from the swarm.
type Source interface {
	// ReadRange returns n bytes at off of a pack, proved against its
	// manifest, from whichever holders have them. Its errors are those of
	// package readerr. The slice is the caller's.
	ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error)
	// ReadKnown is ReadRange for bytes of which fits tells whether they are
	// right: that spares holders and readers the proof. fitted says that they
	// passed it; otherwise they are proved, and the caller has to look. room,
	// unless it is nil, gives memory of so many bytes for each holder that is
	// asked so; what fitted may lie in it, and any other that it gave may still be
	// written to after the return. Both may be called from several goroutines,
	// also after the return.
	ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(n int) []byte, fits func([]byte) bool) (b []byte, fitted bool, err error)
}

// Reader is safe for concurrent use.
type Reader struct {
	table  *blocks.Table
	packs  *packfiles.Store
	source Source
	names  secret.Key
	units  *unitCache
	chunks chunkCache

	mu      sync.Mutex // guards all below
	newest  *commit.Commit
	at      commit.Locator // of newest
	learned map[link.Hash]bool
	lists   map[link.Hash][]commit.Piece // of pieces of the index, read lately
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Reader) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "readthrough.Reader(…)") }

// New returns a Reader for a drive whose names are keyed with names; source may
// be nil where there is no swarm.
func New(table *blocks.Table, packs *packfiles.Store, source Source, names secret.Key) *Reader {
	r := &Reader{table: table, packs: packs, source: source, names: names, units: newUnitCache(), learned: map[link.Hash]bool{}, lists: map[link.Hash][]commit.Piece{}}
	r.chunks.r = r
	return r
}

// SetCommit makes c, which lies at l, the commit whose index and tables are
// read.
func (r *Reader) SetCommit(c *commit.Commit, l commit.Locator) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest, r.at = c, l
}

// Commit returns the commit that is read; nil if there is none.
func (r *Reader) Commit() (*commit.Commit, commit.Locator) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest, r.at
}

// Get implements dag.Getter: it returns the plaintext of a block.
func (r *Reader) Get(ctx context.Context, l link.Link) ([]byte, error) {
	return r.find(ctx, l, nil, open(l))
}

// Ciphertext returns a block as it is stored, checked against its link.
func (r *Reader) Ciphertext(ctx context.Context, l link.Link) ([]byte, error) {
	return r.find(ctx, l, nil, func(ct []byte, hashed bool) ([]byte, error) {
		if hashed || matches(l, ct) {
			return ct, nil
		}
		return nil, block.ErrCorrupt
	})
}

// opener makes something of a ciphertext, which is its own from then on. hashed
// says that the ciphertext is known to have the hash of its link.
type opener func(ct []byte, hashed bool) ([]byte, error)

// open is the opener that makes it the plaintext.
func open(l link.Link) opener {
	return func(ct []byte, hashed bool) ([]byte, error) {
		if hashed {
			return block.OpenHashed(l, ct, ct)
		}
		return block.Open(l, ct, ct)
	}
}

// matches reports whether a ciphertext has the hash of its link.
func matches(l link.Link, ct []byte) bool { return block.HashOf(ct) == l.Hash }

// find returns what open makes of a block's ciphertext, from the first place
// where it is the right one. The ciphertext comes into rooms, unless that is nil.
func (r *Reader) find(ctx context.Context, l link.Link, in *rooms, open opener) ([]byte, error) {
	places, err := r.Places(ctx, l)
	if err != nil {
		return nil, err
	}
	out, err := r.first(ctx, l, places, in, open)
	if err == nil || ctx.Err() != nil || errors.Is(err, readerr.ErrUnreachable) {
		return out, err
	}
	others, lerr := r.others(ctx, l, places)
	if lerr != nil || len(others) == 0 {
		return nil, err
	}
	return r.first(ctx, l, others, in, open)
}

// first is find for places that are known, at least one.
func (r *Reader) first(ctx context.Context, l link.Link, places []blockindex.Place, in *rooms, open opener) (out []byte, err error) {
	for _, p := range places {
		var ref group.PackRef
		if ref, err = r.ref(p); err != nil {
			continue
		}
		if out, err = r.read(ctx, ref, p, l, in, open); err == nil {
			return out, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, err
}

// others returns where else a block lies, where not all of the index has been learned:
// what was read of it may name a pack that was given up since, and a newer piece, that was
// not read, the one where the block was stored again before that.
func (r *Reader) others(ctx context.Context, l link.Link, but []blockindex.Place) ([]blockindex.Place, error) {
	if counted, err := r.table.Counted(); err != nil || counted {
		return nil, err
	}
	_ = r.learnFor(ctx, l.Hash) // what of it can be read helps
	b, _, err := r.table.Get(l.Hash)
	return slices.DeleteFunc(b.Places, func(p blockindex.Place) bool { return slices.Contains(but, p) }), err
}

// At returns the plaintext of the block at a locator, which needs no index.
func (r *Reader) At(ctx context.Context, l commit.Locator) ([]byte, error) {
	ref := group.PackRef{Group: l.Group, Number: l.Number, Class: l.Class, Coding: l.Coding}
	if known, err := r.ref(blockindex.Place{Group: l.Group, Number: l.Number}); err == nil {
		ref = known
	}
	place := blockindex.Place{Group: l.Group, Number: l.Number, Offset: l.Offset, Length: l.Length}
	return r.read(ctx, ref, place, l.Link, nil, open(l.Link))
}

// Pack returns all of a pack as holders have it, also if it is kept here.
func (r *Reader) Pack(ctx context.Context, id group.ID, number uint16) ([]byte, error) {
	ref, err := r.ref(blockindex.Place{Group: id, Number: number})
	if err == nil && r.source == nil {
		err = fmt.Errorf("pack %d of group %v: %w", number, id, readerr.ErrUnreachable)
	}
	if err != nil {
		return nil, err
	}
	return r.source.ReadRange(ctx, ref, 0, ref.Class.Size())
}

// ref gathers what the account knows of a pack.
func (r *Reader) ref(p blockindex.Place) (group.PackRef, error) {
	g, ok, err := r.table.Group(p.Group)
	if err != nil {
		return group.PackRef{}, err
	}
	if !ok {
		return group.PackRef{}, fmt.Errorf("group %v: %w", p.Group, readerr.ErrAbsent)
	}
	ref := group.PackRef{Group: g.ID, Number: p.Number, Class: g.Class, Coding: g.Coding, Slots: g.Slots}
	pk, ok, err := r.table.Pack(p.Group, p.Number)
	if err == nil && ok {
		ref.Manifest = pk.Manifest
	}
	return ref, err
}

// read opens the ciphertext at a place, from here if it is kept here.
func (r *Reader) read(ctx context.Context, ref group.PackRef, p blockindex.Place, l link.Link, in *rooms, open opener) ([]byte, error) {
	if uint64(p.Offset)+uint64(p.Length) > uint64(ref.Class.Size()) || p.Length > block.MaxSealed {
		return nil, fmt.Errorf("block %v: place outside its pack: %w", l, readerr.ErrCorrupt)
	}
	if r.packs != nil {
		if ct, err := r.packs.Read(p.Group, p.Number, int(p.Offset), int(p.Length)); err == nil {
			if out, err := open(ct, false); err == nil {
				return out, nil
			} // a damaged file is passed over: the swarm has it too
		}
	}
	if r.source == nil {
		return nil, fmt.Errorf("block %v: %w", l, readerr.ErrUnreachable)
	}
	ct, hashed, err := r.fetch(ctx, ref, p, l, in)
	if err != nil {
		return nil, fmt.Errorf("block %v: %w", l, err)
	}
	out, err := open(ct, hashed)
	if err != nil {
		return nil, fmt.Errorf("block %v: pack %d of group %v holds something else: %w: %w", l, p.Number, p.Group, readerr.ErrCorrupt, err)
	}
	return out, nil
}

// large is from how many bytes on a block is fetched by itself: it is checked
// by its own hash, and nothing that lies beside it is kept. Smaller ones come
// with their neighbours, in units that are proved.
const large = 384 << 10

// fetch brings the ciphertext at a place from the swarm.
func (r *Reader) fetch(ctx context.Context, ref group.PackRef, p blockindex.Place, l link.Link, in *rooms) (ct []byte, hashed bool, err error) {
	off, n := int(p.Offset), int(p.Length)
	if n < large {
		ct, err = r.units.read(ctx, r.source, ref, off, n)
		return ct, false, err
	}
	ct, hashed, err = r.source.ReadKnown(ctx, ref, off, n, in.give(), func(b []byte) bool { return matches(l, b) })
	in.used(hashed)
	return ct, hashed, err
}

// Places returns where a block lies, at least one place, the one from which it
// is read first. What is not known here of the index is fetched.
func (r *Reader) Places(ctx context.Context, l link.Link) ([]blockindex.Place, error) {
	b, ok, err := r.table.Get(l.Hash)
	if err != nil || ok && len(b.Places) > 0 {
		return b.Places, err
	}
	unread := r.learnFor(ctx, l.Hash)
	b, ok, err = r.table.Get(l.Hash)
	switch {
	case err != nil || ok && len(b.Places) > 0:
		return b.Places, err
	case unread != nil:
		return nil, unread
	}
	return nil, fmt.Errorf("block %v is in no index: %w", l, readerr.ErrAbsent)
}

// learnFor reads the pieces of the commit's index that may name a hash. Those that
// cannot be read keep nobody from the others.
func (r *Reader) learnFor(ctx context.Context, h link.Hash) (err error) {
	c, at := r.Commit()
	if c == nil {
		return nil
	}
	for i := len(c.Segments) - 1; i >= 0 && ctx.Err() == nil; i-- {
		if lerr := r.learnIn(ctx, c.Segments[i], at, h); lerr != nil {
			err = fmt.Errorf("block index: %w", lerr)
		}
	}
	return err
}

// Dir implements tree.Content.
func (r *Reader) Dir(ctx context.Context, root link.Link, fn func(name string, rec dag.Inode) error) error {
	return classify(dag.WalkDir(ctx, r, root, fn))
}

// Linked implements tree.Content.
func (r *Reader) Linked(ctx context.Context, id uint64) (dag.Inode, error) {
	c, _ := r.Commit()
	if c == nil || c.Links.IsZero() {
		return dag.Inode{}, readerr.ErrAbsent
	}
	rec, ok, err := dag.LookupDir(ctx, r, r.names, c.Links, dag.InodeName(id))
	if err != nil {
		return rec, classify(err)
	}
	if !ok {
		return rec, readerr.ErrAbsent
	}
	return rec, nil
}

// classify makes the errors of the layer below those of package readerr.
func classify(err error) error {
	if errors.Is(err, dag.ErrCorrupt) || errors.Is(err, block.ErrCorrupt) {
		return fmt.Errorf("%w: %w", readerr.ErrCorrupt, err)
	}
	return err
}
