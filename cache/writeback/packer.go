package writeback

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"skep/cache/blocks"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// inFlight is how many packs may be on their way to holders at once, where somebody
// waits for the commit, and one where nobody does; one more fills meanwhile. It
// bounds the memory of a commit.
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
	full   chan struct{} // a token for who waits to send a full pack
	strong bool          // no pack is stored where it would be weak

	mu    sync.Mutex // guards all below
	open  map[group.Kind]*filling
	fresh map[link.Hash]freshBlock // in packs that are not acknowledged yet
	tags  map[block.Tag]link.Link  // of the same
	// claims are of blocks that somebody seals; closed when that ended.
	claims map[block.Tag]chan struct{}
	// entered is closed when the last pack of metadata that was sent is in the account.
	entered chan struct{}
}

// filling is a pack being filled.
type filling struct {
	kind group.Kind
	b    *pack.Builder
	refs [][]link.Link // of each entry
	// links is how many refs there are in all, at most blocks.MaxRefs.
	links int
	// sealing waits for those who seal blocks into it; more come only while it is
	// open.
	sealing sync.WaitGroup
}

type freshBlock struct {
	in    *filling
	entry pack.Entry
}

func newPacker(ctx context.Context, e *Engine) *packer {
	sends, ctx := errgroup.WithContext(ctx)
	return &packer{e: e, ctx: ctx, sends: sends, flying: make(chan struct{}, inFlight), full: make(chan struct{}, 1),
		open: map[group.Kind]*filling{}, fresh: map[link.Hash]freshBlock{}, tags: map[block.Tag]link.Link{},
		claims: map[block.Tag]chan struct{}{}}
}

// newMover is a packer of blocks that are moved; strong says that none are where they
// would be weak.
func newMover(ctx context.Context, e *Engine, strong bool) *packer {
	p := newPacker(ctx, e)
	p.strong = strong
	return p
}

// Put implements dag.Putter: it seals a block and puts it into a pack, unless
// the drive has it already.
func (p *packer) Put(ctx context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error) {
	buf := plainBuffers.get()
	defer plainBuffers.put(buf)
	n := block.Headroom + copy(buf[block.Headroom:], plain)
	if n < block.Headroom+len(plain) {
		return link.Link{}, block.ErrTooLarge
	}
	return p.putFramed(ctx, codec, buf[:n], refs)
}

// putFramed is Put for the plaintext behind buf[:block.Headroom].
func (p *packer) putFramed(ctx context.Context, codec uint64, buf []byte, refs []link.Link) (link.Link, error) {
	if err := p.failed(ctx); err != nil {
		return link.Link{}, err
	}
	var prep block.Prepared
	err := p.e.pace.work(ctx, func() (err error) {
		prep, err = p.e.sealer.PrepareFramed(codec, buf)
		return err
	})
	if err != nil {
		return link.Link{}, err
	}
	l, here, err := p.claim(ctx, prep.Tag())
	if here || err != nil {
		return l, err
	}
	defer p.release(prep.Tag())
	if l, ok, err := p.e.find(prep.Tag()); ok || err != nil {
		return l, err
	}
	pressed := plainBuffers.get()
	defer plainBuffers.put(pressed)
	err = p.e.pace.work(ctx, func() error {
		prep.Compress(pressed)
		return nil
	})
	if err != nil {
		return link.Link{}, err
	}
	return p.seal(&prep, kindOf(codec), refs)
}

func kindOf(codec uint64) group.Kind {
	if codec == link.Raw {
		return group.Content
	}
	return group.Metadata
}

// claim returns the block with this tag if it is in a pack on its way. If not,
// the tag is the caller's until release, and others who want it wait.
func (p *packer) claim(ctx context.Context, tag block.Tag) (l link.Link, here bool, err error) {
	for {
		p.mu.Lock()
		l, here = p.tags[tag]
		sealing, claimed := p.claims[tag]
		if !here && !claimed {
			p.claims[tag] = make(chan struct{})
		}
		p.mu.Unlock()
		if here || !claimed {
			return l, here, nil
		}
		select {
		case <-sealing:
		case <-ctx.Done():
			return l, false, ctx.Err()
		}
	}
}

func (p *packer) release(tag block.Tag) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.claims[tag])
	delete(p.claims, tag)
}

// seal seals a block into the open pack of its kind. Others do so at the same
// time.
func (p *packer) seal(prep *block.Prepared, kind group.Kind, refs []link.Link) (link.Link, error) {
	f, entry, room, err := p.reserve(kind, prep.SealedSize(), refs)
	if err != nil {
		return link.Link{}, err
	}
	s := prep.Seal(room)
	p.fill(f, entry, s)
	return s.Link, nil
}

// add puts a block that is sealed already into the open pack of its kind, unless
// it is in a pack on its way.
func (p *packer) add(ctx context.Context, s block.Sealed) error {
	if s.Tag != (block.Tag{}) { // else nothing is known of it but its link, and nobody seals it
		if _, here, err := p.claim(ctx, s.Tag); here || err != nil {
			return err
		}
		defer p.release(s.Tag)
	}
	f, entry, room, err := p.reserve(kindOf(s.Link.Codec), len(s.Ciphertext), nil)
	if err != nil {
		return err
	}
	copy(room, s.Ciphertext)
	p.fill(f, entry, s)
	return nil
}

// fill says which block it is that lies in reserved room.
func (p *packer) fill(f *filling, entry int, s block.Sealed) {
	defer f.sealing.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fresh[s.Link.Hash] = freshBlock{f, f.b.Fill(entry, s)}
	p.tags[s.Tag] = s.Link
}

// find returns the block with this tag that may be referred to again. One in a
// pack that is lost is stored anew: what referred to it before has it again then.
// So is one that nothing is known to refer to, unless it is surely kept.
func (e *Engine) find(tag block.Tag) (link.Link, bool, error) {
	l, ok, err := e.table.Find(tag)
	if err != nil || !ok {
		return l, ok, err
	}
	b, ok, err := e.table.Get(l.Hash)
	if err != nil || !ok || len(b.Places) == 0 {
		return link.Link{}, false, err
	}
	home := b.Places[0]
	if e.isLost(packID{home.Group, home.Number}) {
		return link.Link{}, false, nil
	}
	if b.Refs > 0 {
		return l, true, nil
	}
	kept, err := e.isKept(home)
	return l, kept, err
}

// isKept reports whether a pack is there though nothing may need it: this device
// made it, or enough holders said here that they have it. Another device may have
// given up what it made after the commit that this one began with.
func (e *Engine) isKept(at blockindex.Place) (bool, error) {
	g, ok, err := e.table.Group(at.Group)
	if !ok || err != nil {
		return false, err
	}
	if g.Founder == e.self() {
		return true, nil
	}
	p, ok, err := e.table.Pack(at.Group, at.Number)
	return ok && p.Acked.Count() >= int(g.Coding.K), err
}

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

// reserve keeps room for a block of n bytes in the open pack of its kind, sending
// that first if it is full. Fill is due.
func (p *packer) reserve(kind group.Kind, n int, refs []link.Link) (*filling, int, []byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		f := p.open[kind]
		if f == nil {
			f = &filling{kind: kind, b: pack.NewBuilder(p.e.classOf(kind), p.e.buffers.get(p.e.classOf(kind).Size()))}
			p.open[kind] = f
		}
		if len(f.refs) == 0 || f.b.Fits(n) && f.links+len(refs) <= blocks.MaxRefs { // what an empty pack does not hold, none does
			entry, room, err := f.b.Reserve(n)
			if err != nil {
				return nil, 0, nil, fmt.Errorf("block of %d bytes: %w", n, err)
			}
			f.refs = append(f.refs, refs)
			f.links += len(refs)
			f.sealing.Add(1)
			return f, entry, room, nil
		}
		p.mu.Unlock()
		err := p.makeRoom(f)
		p.mu.Lock()
		if err != nil {
			return nil, 0, nil, err
		}
	}
}

// Get implements dag.Getter: blocks of packs that are on their way are read
// from there. Those that are with holders alone may be a tree.ErrUnread.
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
	b, err := p.e.reader.Get(ctx, l)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", tree.ErrUnread, err)
	}
	return b, err
}

// makeRoom sends an open pack that is full as soon as it may be in flight. Until
// then it stays open, so that nobody begins another one.
func (p *packer) makeRoom(f *filling) error {
	select {
	case p.full <- struct{}{}:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	defer func() { <-p.full }()
	p.mu.Lock()
	open := p.open[f.kind] == f
	p.mu.Unlock()
	if !open { // another has sent it
		return nil
	}
	landed, err := p.takeOff()
	if err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.open, f.kind)
	p.mu.Unlock()
	p.send(f, landed)
	return nil
}

// takeOff returns when one more pack may be on its way; it is until landed.
func (p *packer) takeOff() (landed func(), err error) {
	done, err := p.e.pace.alone(p.ctx)
	if err != nil {
		return nil, err
	}
	select {
	case p.flying <- struct{}{}:
		return func() { <-p.flying; done() }, nil
	case <-p.ctx.Done():
		done()
		return nil, context.Cause(p.ctx)
	}
}

// send hands a pack over in the background.
func (p *packer) send(f *filling, landed func()) {
	before, entered := p.enterAfter(f.kind)
	p.sends.Go(func() error {
		defer landed()
		p.e.saidAll.Store(false)
		_, err := p.sendNow(f, before)
		if err == nil {
			close(entered)
		}
		return err
	})
}

// enterAfter returns the channel that is closed when a pack which is sent now may enter
// the account, nil if at once, and the one to close when it has. Packs of metadata enter
// in the order in which they are sent: no block is there before those that it refers to.
// If the process ends in between, they might never come, and what counts references anew
// would look for them for good.
func (p *packer) enterAfter(kind group.Kind) (before, entered chan struct{}) {
	entered = make(chan struct{})
	if kind != group.Metadata {
		return nil, entered
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.entered = p.entered, entered
	return before, entered
}

// sendNow codes, signs and stores a pack and enters it into the account, after another
// one if before is not nil. It returns where the pack lies.
func (p *packer) sendNow(f *filling, before <-chan struct{}) (commit.Locator, error) {
	f.sealing.Wait()
	class, bytes, err := f.b.Seal(p.e.read)
	if err != nil {
		return commit.Locator{}, err
	}
	placed, err := p.e.storePack(p.ctx, f.kind, class, bytes, p.strong)
	if err != nil {
		return commit.Locator{}, err
	}
	if before != nil {
		select {
		case <-before:
		case <-p.ctx.Done():
			return commit.Locator{}, context.Cause(p.ctx)
		}
	}
	stored := make([]blocks.Stored, len(f.refs))
	for i, e := range f.b.Entries() {
		stored[i] = blocks.Stored{Entry: e, Refs: f.refs[i]}
	}
	row := blocks.Pack{Group: placed.group.ID, Number: placed.number, Kind: f.kind, Acked: placed.acked, Manifest: placed.manifest}
	if err := p.e.table.AddPack(row, placed.group.Slots, stored); err != nil {
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
		landed, err := p.takeOff()
		if err != nil {
			return errors.Join(err, p.sends.Wait())
		}
		p.send(f, landed)
	}
	return p.sends.Wait()
}
