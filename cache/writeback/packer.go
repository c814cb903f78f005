package writeback

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"skep/cache/blocks"
	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// inFlight is how many packs may be on their way to holders at once; one more
// fills meanwhile. It bounds the memory of a commit.
const inFlight = 3

// metadataClass is the largest class of metadata packs: they are fetched whole
// more often than packs of content.
const metadataClass erasure.Class = 22

// packer fills packs with blocks and sends the full ones. Put may be called
// concurrently.
type packer struct {
	e      *Engine
	ctx    context.Context // of the commit; done when a pack could not be sent
	sends  *errgroup.Group
	flying chan struct{} // one token for each pack on its way

	mu    sync.Mutex // guards all below
	open  map[group.Kind]*filling
	fresh map[link.Hash]freshBlock // in packs that are not acknowledged yet
	tags  map[block.Tag]link.Link  // of the same
	bytes int64                    // ciphertext put into packs
}

// filling is a pack being filled.
type filling struct {
	kind group.Kind
	b    *pack.Builder
	refs [][]link.Link // of each entry
}

type freshBlock struct {
	in    *filling
	entry pack.Entry
}

func newPacker(ctx context.Context, e *Engine) *packer {
	sends, ctx := errgroup.WithContext(ctx)
	return &packer{e: e, ctx: ctx, sends: sends, flying: make(chan struct{}, inFlight),
		open: map[group.Kind]*filling{}, fresh: map[link.Hash]freshBlock{}, tags: map[block.Tag]link.Link{}}
}

// Put implements dag.Putter: it seals a block and puts it into a pack, unless
// the drive has it already.
func (p *packer) Put(ctx context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error) {
	if err := p.failed(ctx); err != nil {
		return link.Link{}, err
	}
	prep, err := p.e.sealer.Prepare(codec, plain)
	if err != nil {
		return link.Link{}, err
	}
	if l, ok, err := p.find(prep.Tag()); ok || err != nil {
		return l, err
	}
	buf := sealBuffers.Get().(*[]byte)
	defer sealBuffers.Put(buf)
	s := prep.Seal(*buf)
	return s.Link, p.add(s, refs)
}

var sealBuffers = sync.Pool{New: func() any { b := make([]byte, 0, block.MaxSealed); return &b }}

// failed returns why the commit cannot go on.
func (p *packer) failed(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	return nil
}

// find returns the block with this tag, if the drive has it.
func (p *packer) find(tag block.Tag) (link.Link, bool, error) {
	p.mu.Lock()
	l, ok := p.tags[tag]
	p.mu.Unlock()
	if ok {
		return l, true, nil
	}
	return p.e.table.Find(tag)
}

// add puts a sealed block into the open pack of its kind, sending that first if
// it is full.
func (p *packer) add(s block.Sealed, refs []link.Link) error {
	kind := group.Metadata
	if s.Link.Codec == link.Raw {
		kind = group.Content
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.tags[s.Tag]; ok {
		return nil // somebody sealed the same meanwhile
	}
	for {
		f := p.open[kind]
		if f == nil {
			f = &filling{kind: kind, b: pack.NewBuilder(p.e.classOf(kind), p.e.buffers.get(p.e.classOf(kind).Size()))}
			p.open[kind] = f
		}
		if len(f.refs) == 0 || f.b.Fits(len(s.Ciphertext)) { // what an empty pack does not hold, none does
			return p.put(f, s, refs)
		}
		delete(p.open, kind)
		p.mu.Unlock()
		err := p.send(f)
		p.mu.Lock()
		if err != nil {
			return err
		}
		if _, ok := p.tags[s.Tag]; ok {
			return nil
		}
	}
}

// put appends a block to a pack; p.mu is held.
func (p *packer) put(f *filling, s block.Sealed, refs []link.Link) error {
	off, err := f.b.Add(s)
	if err != nil {
		return fmt.Errorf("block %v: %w", s.Link, err)
	}
	f.refs = append(f.refs, refs)
	p.fresh[s.Link.Hash] = freshBlock{f, pack.Entry{Link: s.Link, Tag: s.Tag, Offset: off, Length: uint32(len(s.Ciphertext))}}
	p.tags[s.Tag] = s.Link
	p.bytes += int64(len(s.Ciphertext))
	return nil
}

// Get implements dag.Getter: blocks of packs that are on their way are read
// from there.
func (p *packer) Get(ctx context.Context, l link.Link) ([]byte, error) {
	p.mu.Lock()
	f, ok := p.fresh[l.Hash]
	var ct []byte
	if ok {
		ct = append(ct, f.in.b.At(f.entry)...)
	}
	p.mu.Unlock()
	if ok {
		return block.Open(l, ct, ct)
	}
	return p.e.reader.Get(ctx, l)
}

// send hands a full pack over in the background, as soon as there is room for
// it in flight.
func (p *packer) send(f *filling) error {
	select {
	case p.flying <- struct{}{}:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.sends.Go(func() error {
		defer func() { <-p.flying }()
		_, err := p.sendNow(f)
		return err
	})
	return nil
}

// sendNow codes, signs and stores a pack and enters it into the account. It
// returns where the pack lies.
func (p *packer) sendNow(f *filling) (commit.Locator, error) {
	class, bytes, err := f.b.Seal(p.e.read)
	if err != nil {
		return commit.Locator{}, err
	}
	placed, err := p.e.storePack(p.ctx, f.kind, class, bytes)
	if err != nil {
		return commit.Locator{}, err
	}
	stored := make([]blocks.Stored, len(f.refs))
	for i, e := range f.b.Entries() {
		stored[i] = blocks.Stored{Entry: e, Refs: f.refs[i]}
	}
	row := blocks.Pack{Group: placed.group.ID, Number: placed.number, Kind: f.kind, Acked: placed.acked, Manifest: placed.manifest}
	if err := p.e.table.AddPack(row, stored); err != nil {
		return commit.Locator{}, err
	}
	p.mu.Lock()
	for _, s := range stored {
		delete(p.fresh, s.Link.Hash)
		delete(p.tags, s.Tag)
	}
	p.mu.Unlock()
	p.e.buffers.put(bytes)
	return commit.Locator{Group: placed.group.ID, Number: placed.number, Class: class, Coding: placed.group.Coding}, nil
}

// flush sends what is open and waits until everything is acknowledged.
func (p *packer) flush() error {
	p.mu.Lock()
	var rest []*filling
	for kind, f := range p.open {
		rest = append(rest, f)
		delete(p.open, kind)
	}
	p.mu.Unlock()
	for _, f := range rest {
		if err := p.send(f); err != nil {
			return errors.Join(err, p.sends.Wait())
		}
	}
	return p.sends.Wait()
}
