package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
)

var (
	sealer   = block.NewSealer(secret.Key{1})
	readKey  = secret.Key{2}
	nameKey  = secret.Key{3}
	theGroup = group.ID{4}
)

// packs is a swarm that has whole packs and answers as it is told.
type packs struct {
	mu    sync.Mutex // guards all below
	bytes map[uint16][]byte
	asked []string // ranges, in units
	err   error    // of every answer
	lie   bool     // flip a bit in every answer
	hold  chan struct{}
	held  int // who wait for it
}

func (p *packs) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	if size := ref.Class.Size(); off%erasure.Unit != 0 || n%erasure.Unit != 0 && off+n != size {
		return nil, fmt.Errorf("a range of %d at %d shows where blocks lie", n, off)
	}
	return p.read(ctx, ref, off, n)
}

func (p *packs) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	b, err := p.read(ctx, ref, off, n)
	if err != nil || !fits(b) {
		return b, false, err
	}
	if room != nil {
		b = append(room(len(b))[:0], b...)
	}
	return b, true, nil
}

func (p *packs) read(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	p.mu.Lock()
	b, hold, err, lie := p.bytes[ref.Number], p.hold, p.err, p.lie
	p.asked = append(p.asked, fmt.Sprintf("%d:%d+%d", ref.Number, off/erasure.Unit, (n+erasure.Unit-1)/erasure.Unit))
	p.mu.Unlock()
	if hold != nil {
		p.set(func(p *packs) { p.held++ })
		defer p.set(func(p *packs) { p.held-- })
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err == nil && b == nil {
		err = readerr.ErrLost
	}
	if err != nil {
		return nil, err
	}
	out := bytes.Clone(b[off : off+n])
	if lie {
		for i := range out {
			out[i] ^= 1
		}
	}
	return out, nil
}

func (p *packs) set(fn func(*packs)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(p)
}

// requests are the ranges asked since the last call.
func (p *packs) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.asked
	p.asked = nil
	return out
}

// device is a Reader over tables of its own.
type device struct {
	t      testing.TB
	swarm  *packs
	table  *blocks.Table
	kept   *packfiles.Store
	reader *readthrough.Reader
}

func newDevice(t testing.TB, swarm *packs) *device { return newDeviceOn(t, swarm, swarm) }

// newDeviceOn is newDevice that reads the swarm through a source of its own.
func newDeviceOn(t testing.TB, swarm *packs, source readthrough.Source) *device {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	kept, err := packfiles.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, swarm: swarm, table: blocks.New(st), kept: kept}
	d.reader = readthrough.New(d.table, kept, source, nameKey)
	err = d.table.PutGroup(group.Group{ID: theGroup, Class: 22, Kind: group.Content, Coding: erasure.NewCoding(1, 1),
		Slots: []group.PeerKey{{1}}, Packs: group.MaxPacks})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newSwarm() *packs { return &packs{bytes: map[uint16][]byte{}} }

// pack puts blocks of noise of these sizes into pack n of the swarm.
func (p *packs) pack(t testing.TB, n uint16, sizes ...int) (plains [][]byte, entries []pack.Entry) {
	t.Helper()
	b := pack.NewBuilder(22, nil)
	rnd := rand.NewChaCha8([32]byte{byte(n)})
	for _, size := range sizes {
		plain := make([]byte, size)
		_, _ = rnd.Read(plain)
		s, err := sealer.Seal(link.Raw, plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Add(s); err != nil {
			t.Fatal(err)
		}
		plains = append(plains, plain)
	}
	p.seal(t, n, b)
	return plains, b.Entries()
}

// seal gives a pack to the swarm, at the size of class 22 whatever it needs.
func (p *packs) seal(t testing.TB, n uint16, b *pack.Builder) {
	_, sealed, err := b.Seal(readKey)
	if err != nil {
		t.Fatal(err)
	}
	p.set(func(p *packs) { p.bytes[n] = append(bytes.Clone(sealed), make([]byte, 1<<22-len(sealed))...) })
}

// account enters a pack into the device's account.
func (d *device) account(n uint16, entries []pack.Entry) {
	d.t.Helper()
	var stored []blocks.Stored
	for _, e := range entries {
		stored = append(stored, blocks.Stored{Entry: e})
	}
	if err := d.table.AddPack(blocks.Pack{Group: theGroup, Number: n, Kind: group.Content}, nil, stored); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) get(l link.Link, want []byte) {
	d.t.Helper()
	got, err := d.reader.Get(d.t.Context(), l)
	if err != nil || !bytes.Equal(got, want) {
		d.t.Fatalf("block %v: %d bytes, %v", l, len(got), err)
	}
}

// Whatever is read in whatever order is what was stored, and no range shows the
// borders of blocks.
func TestReadsWhatWasStored(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 7, 10, 100_000, 1<<20, 65_536, 1, 0, 500_000, 30_000, 30_000, 200_000)
	d.account(7, entries)
	rapid.Check(t, func(t *rapid.T) {
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(plains)-1), 1, 20).Draw(t, "order") {
			got, err := d.reader.Get(context.Background(), entries[i].Link)
			if err != nil || !bytes.Equal(got, plains[i]) {
				t.Fatalf("block %d: %d bytes, %v", i, len(got), err)
			}
		}
	})
}

// Small blocks that lie together are fetched together.
func TestNeighboursShareAFetch(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 1, 1000, 1000, 1000, 1000)
	d.account(1, entries)
	for i, e := range entries {
		d.get(e.Link, plains[i])
	}
	if got := swarm.requests(); len(got) != 1 {
		t.Errorf("asked for %v", got)
	}
}

// A pack that is kept here needs nobody; one that was damaged is passed over.
func TestKeptPacks(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 1, 5000, 5000)
	d.account(1, entries)
	whole := swarm.bytes[1]
	if err := d.kept.Put(theGroup, 1, whole); err != nil {
		t.Fatal(err)
	}
	d.get(entries[0].Link, plains[0])
	if got := swarm.requests(); len(got) != 0 {
		t.Errorf("asked for %v", got)
	}
	bad := bytes.Clone(whole)
	bad[entries[1].Offset] ^= 1
	if err := d.kept.Put(theGroup, 1, bad); err != nil {
		t.Fatal(err)
	}
	d.get(entries[1].Link, plains[1])
	if got := swarm.requests(); len(got) != 1 {
		t.Errorf("asked for %v", got)
	}
	if err := d.kept.Put(theGroup, 1, whole[:100]); err != nil { // cut short
		t.Fatal(err)
	}
	d.get(entries[1].Link, plains[1])
}

// A block that lies in several places is read from the next when one fails.
func TestOtherPlaces(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 1, 3000)
	_, again := swarm.pack(t, 1, 3000)
	swarm.set(func(p *packs) { p.bytes[2] = bytes.Clone(p.bytes[1]); clear(p.bytes[2]) })
	d.account(1, entries)
	d.account(2, again) // the newer place, where it is not
	d.get(entries[0].Link, plains[0])
}

// The errors of the swarm, and of bytes that are wrong, are told apart.
func TestErrors(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	_, entries := swarm.pack(t, 1, 3000, 500_000)
	d.account(1, entries)
	l, large := entries[0].Link, entries[1].Link
	for _, want := range []error{readerr.ErrLost, readerr.ErrUnreachable, readerr.ErrCorrupt} {
		swarm.set(func(p *packs) { p.err = fmt.Errorf("pack 1: %w", want) })
		for _, l := range []link.Link{l, large} {
			if _, err := d.reader.Get(t.Context(), l); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
	}
	swarm.set(func(p *packs) { p.err, p.lie = nil, true })
	for _, l := range []link.Link{l, large} {
		if got, err := d.reader.Get(t.Context(), l); !errors.Is(err, readerr.ErrCorrupt) || got != nil {
			t.Errorf("wrong bytes: %d bytes, %v", len(got), err)
		}
		if got, err := d.reader.Ciphertext(t.Context(), l); !errors.Is(err, readerr.ErrCorrupt) || got != nil {
			t.Errorf("wrong ciphertext: %d bytes, %v", len(got), err)
		}
	}
	stranger := link.Link{Codec: link.Raw, Hash: link.Hash{9}}
	if _, err := d.reader.Get(t.Context(), stranger); !errors.Is(err, readerr.ErrAbsent) {
		t.Errorf("a block that nobody knows: %v", err)
	}
	alone := readthrough.New(d.table, nil, nil, nameKey)
	if _, err := alone.Get(t.Context(), l); !errors.Is(err, readerr.ErrUnreachable) {
		t.Errorf("without a swarm: %v", err)
	}
}

// A place outside its pack is refused before anything is asked.
func TestHostilePlaces(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	swarm.pack(t, 1, 10)
	for i, p := range []blockindex.Place{
		{Offset: 1 << 22, Length: 20},
		{Offset: 1<<32 - 1, Length: 1},
		{Offset: 16, Length: block.MaxSealed + 1},
	} {
		p.Group, p.Number = theGroup, 1
		l := link.Link{Codec: link.Raw, Hash: link.Hash{byte(i + 1)}}
		if err := d.table.Learn([]blockindex.Entry{{Link: l, Place: p}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.reader.Get(t.Context(), l); !errors.Is(err, readerr.ErrCorrupt) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if got := swarm.requests(); len(got) != 0 {
		t.Errorf("asked for %v", got)
	}
}

// published stores an index over blocks in pack n, as a commit has it, and
// returns a locator of each piece.
func (p *packs) published(t testing.TB, n uint16, lists ...[]blockindex.Entry) (segments []commit.Segment) {
	b := pack.NewBuilder(22, nil)
	for _, entries := range lists {
		seg := commit.Segment{Count: uint64(len(entries))}
		for half := range slices.Chunk(entries, max(1, len(entries)/2)) { // pieces that are smaller than need be
			s, err := sealer.Seal(link.CBOR, blockindex.Encode(half), nil)
			if err != nil {
				t.Fatal(err)
			}
			off, err := b.Add(s)
			if err != nil {
				t.Fatal(err)
			}
			seg.Pieces = append(seg.Pieces, commit.Piece{First: half[0].Link.Hash, At: commit.Locator{Group: theGroup, Number: n, Class: 22,
				Coding: erasure.NewCoding(1, 1), Offset: off, Length: uint32(len(s.Ciphertext)), Link: s.Link}})
		}
		segments = append(segments, seg)
	}
	p.seal(t, n, b)
	return segments
}

// indexed is a device that knows blocks by the index of a commit alone.
func indexed(t testing.TB, swarm *packs) (d *device, plains [][]byte, entries []pack.Entry) {
	var lists [2][]blockindex.Entry
	for n := range uint16(2) {
		p, e := swarm.pack(t, n, 100, 200, 300, 400)
		plains, entries = append(plains, p...), append(entries, e...)
		for _, x := range e {
			lists[n] = append(lists[n], blockindex.Entry{Link: x.Link, Tag: x.Tag,
				Place: blockindex.Place{Group: theGroup, Number: n, Offset: x.Offset, Length: x.Length}})
		}
		slices.SortFunc(lists[n], blockindex.Compare)
	}
	d = newDevice(t, swarm)
	c := &commit.Commit{Segments: swarm.published(t, 9, lists[:]...)}
	d.reader.SetCommit(c, commit.Locator{Group: theGroup, Number: 9, Class: 22, Coding: erasure.NewCoding(1, 1)})
	return d, plains, entries
}

// What the account has not heard of is found by the commit's index, whose
// pieces are read once.
func TestIndex(t *testing.T) {
	swarm := newSwarm()
	d, plains, entries := indexed(t, swarm)
	for range 2 {
		for i, e := range entries {
			d.get(e.Link, plains[i])
		}
	}
	if got := swarm.requests(); len(got) != 3 {
		t.Errorf("asked for %v, want one unit of each pack", got)
	}
	if _, err := d.reader.Get(t.Context(), link.Link{Codec: link.Raw, Hash: link.Hash{0xff}}); !errors.Is(err, readerr.ErrAbsent) {
		t.Errorf("in no segment: %v", err)
	}
}

// An index whose bytes are wrong is an error and not an absence.
func TestDamagedIndex(t *testing.T) {
	swarm := newSwarm()
	d, _, entries := indexed(t, swarm)
	swarm.set(func(p *packs) { clear(p.bytes[9]) })
	if _, err := d.reader.Get(t.Context(), entries[0].Link); !errors.Is(err, readerr.ErrCorrupt) || errors.Is(err, readerr.ErrAbsent) {
		t.Errorf("%v", err)
	}
}

// A piece of the index that cannot be read keeps nobody from what other pieces name.
func TestBesideADamagedPiece(t *testing.T) {
	swarm := newSwarm()
	d, plains, entries := indexed(t, swarm)
	c, at := d.reader.Commit()
	apart := &commit.Commit{Segments: slices.Clone(c.Segments)}
	swarm.set(func(p *packs) { p.bytes[10] = make([]byte, len(p.bytes[9])) })
	damaged := slices.Clone(c.Segments[0].Pieces)
	for i := range damaged {
		damaged[i].At.Number = 10
	}
	apart.Segments[0].Pieces = damaged
	d.reader.SetCommit(apart, at)
	read := 0
	for i, e := range entries {
		switch got, err := d.reader.Get(t.Context(), e.Link); {
		case err == nil && bytes.Equal(got, plains[i]):
			read++
		case !errors.Is(err, readerr.ErrCorrupt):
			t.Errorf("block %d: %d bytes, %v", i, len(got), err)
		}
	}
	if read != len(entries)/2 {
		t.Errorf("%d of %d blocks were read", read, len(entries))
	}
}

// A block that was stored again before its old pack was given up is found by the newer
// piece of the index, also if an older one was read before for the sake of another block.
func TestStoredAgain(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 1, 100, 200, 300, 400)
	again, stored := map[link.Hash][]byte{}, func(e pack.Entry, n uint16) blockindex.Entry {
		return blockindex.Entry{Link: e.Link, Tag: e.Tag, Place: blockindex.Place{Group: theGroup, Number: n, Offset: e.Offset, Length: e.Length}}
	}
	for i, e := range entries {
		again[e.Link.Hash] = plains[i]
	}
	slices.SortFunc(entries, func(a, b pack.Entry) int { return bytes.Compare(a.Link.Hash[:], b.Link.Hash[:]) })
	swarm.set(func(p *packs) { p.bytes[2] = p.bytes[1]; delete(p.bytes, 1) })
	older := []blockindex.Entry{stored(entries[0], 2), stored(entries[1], 1), stored(entries[2], 2), stored(entries[3], 1)}
	newer := []blockindex.Entry{stored(entries[1], 2)}
	c := &commit.Commit{Segments: swarm.published(t, 9, older, newer)}
	d.reader.SetCommit(c, commit.Locator{Group: theGroup, Number: 9, Class: 22, Coding: erasure.NewCoding(1, 1)})
	for _, e := range entries[:3] {
		d.get(e.Link, again[e.Link.Hash])
	}
	if _, err := d.reader.Get(t.Context(), entries[3].Link); !errors.Is(err, readerr.ErrLost) {
		t.Errorf("a block that is in no other place: %v", err)
	}
}

// putter stores blocks in memory, for files and directories of the tests.
type putter struct {
	b      *pack.Builder
	plains map[link.Hash][]byte
}

func (p *putter) Put(_ context.Context, codec uint64, plain []byte, _ []link.Link) (link.Link, error) {
	s, err := sealer.Seal(codec, plain, nil)
	if err != nil {
		return link.Link{}, err
	}
	if _, ok := p.plains[s.Link.Hash]; !ok {
		p.plains[s.Link.Hash] = bytes.Clone(plain)
		_, err = p.b.Add(s)
	}
	return s.Link, err
}

func (p *putter) Get(_ context.Context, l link.Link) ([]byte, error) { return p.plains[l.Hash], nil }

// file stores a file of so many chunks, the last short, in pack n.
func (d *device) file(n uint16, chunks int) (dag.File, []byte) {
	d.t.Helper()
	content := make([]byte, chunks*dag.ChunkSize-1000)
	_, _ = rand.NewChaCha8([32]byte{byte(n), 1}).Read(content)
	p := &putter{b: pack.NewBuilder(26, nil), plains: map[link.Hash][]byte{}}
	f, err := dag.WriteFile(d.t.Context(), p, dag.File{}, int64(len(content)), []dag.Run{{From: 0, To: int64(chunks)}},
		func(ctx context.Context, i int64) (link.Link, error) {
			return p.Put(ctx, link.Raw, content[i*dag.ChunkSize:min((i+1)*dag.ChunkSize, int64(len(content)))], nil)
		})
	if err != nil {
		d.t.Fatal(err)
	}
	big := group.ID{8}
	err = d.table.PutGroup(group.Group{ID: big, Class: 26, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{1}}, Packs: 9})
	if err != nil {
		d.t.Fatal(err)
	}
	var stored []blocks.Stored
	for _, e := range p.b.Entries() {
		stored = append(stored, blocks.Stored{Entry: e})
	}
	_, sealed, err := p.b.Seal(readKey)
	if err != nil {
		d.t.Fatal(err)
	}
	d.swarm.set(func(p *packs) { p.bytes[n] = append(bytes.Clone(sealed), make([]byte, 1<<26-len(sealed))...) })
	if err := d.table.AddPack(blocks.Pack{Group: big, Number: n, Kind: group.Content}, nil, stored); err != nil {
		d.t.Fatal(err)
	}
	return f, content
}

func chunkOf(content []byte, i int64) []byte {
	return content[i*dag.ChunkSize : min((i+1)*dag.ChunkSize, int64(len(content)))]
}

// Readers of a file, several at once and in whatever order, get its content,
// and each gets a whole chunk.
func TestChunks(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, content := d.file(1, 12)
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			order := rand.New(rand.NewPCG(uint64(r), 0)).Perm(12)
			if r == 0 {
				slices.Sort(order)
			}
			for _, i := range order {
				b, err := d.reader.ReadChunk(context.Background(), f, int64(i))
				if err != nil || !bytes.Equal(b, chunkOf(content, int64(i))) {
					t.Errorf("chunk %d: %d bytes, %v", i, len(b), err)
				}
			}
		})
	}
	wg.Wait()
}

// What was kept stays as it was though the memory of what was lent is used again.
func TestLentChunks(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, content := d.file(1, 12)
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			kept := map[int][]byte{}
			for _, i := range rand.New(rand.NewPCG(uint64(r), 0)).Perm(12) {
				if i%4 == r {
					kept[i], _ = d.reader.ReadChunk(t.Context(), f, int64(i))
					continue
				}
				err := d.reader.LendChunk(t.Context(), f, int64(i), func(b []byte) {
					if !bytes.Equal(b, chunkOf(content, int64(i))) {
						t.Errorf("chunk %d was lent with %d bytes of something else", i, len(b))
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
			for i, b := range kept {
				if !bytes.Equal(b, chunkOf(content, int64(i))) {
					t.Errorf("chunk %d did not stay as it was", i)
				}
			}
		})
	}
	wg.Wait()
}

// A caller that gives up returns at once; another one that waits for the same
// chunk gets it.
func TestGivingUp(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, content := d.file(1, 3)
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		d.swarm.set(func(p *packs) { p.hold = hold })
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp, got := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := d.reader.ReadChunk(ctx, f, 2)
			gaveUp <- err
		}()
		go func() {
			b, err := d.reader.ReadChunk(t.Context(), f, 2)
			if err == nil && !bytes.Equal(b, chunkOf(content, 2)) {
				err = errors.New("another chunk")
			}
			got <- err
		}()
		synctest.Wait() // until the fetch is under way, and both wait for it
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v", err)
		}
		close(hold)
		if err := <-got; err != nil {
			t.Errorf("who waited got %v", err)
		}
	})
}

// When who reads a file in order gives up, and nobody else waits, what was begun to be
// fetched ahead of him ends, too.
func TestGivingUpReadingAhead(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, _ := d.file(1, 20)
	synctest.Test(t, func(t *testing.T) {
		if _, err := d.reader.ReadChunk(t.Context(), f, 19); err != nil { // and where the others are
			t.Fatal(err)
		}
		d.swarm.set(func(p *packs) { p.hold = make(chan struct{}) })
		var waiting []context.CancelFunc
		var gone sync.WaitGroup
		for i := range int64(2) {
			ctx, cancel := context.WithCancel(t.Context())
			waiting = append(waiting, cancel)
			gone.Go(func() { _, _ = d.reader.ReadChunk(ctx, f, i) })
			synctest.Wait()
		}
		under := func() int {
			synctest.Wait()
			d.swarm.mu.Lock()
			defer d.swarm.mu.Unlock()
			return d.swarm.held
		}
		before := under()
		waiting[0]()
		if n := under(); n < before-1 {
			t.Errorf("%d of %d fetches are left while somebody waits", n, before)
		}
		waiting[1]()
		gone.Wait()
		if n := under(); n != 0 || before < 3 {
			t.Errorf("%d of %d fetches are left", n, before)
		}
	})
}

// Who reads in order finds the next chunks on their way; who looks at one chunk
// in the middle causes no more.
func TestReadAhead(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, _ := d.file(1, 20)
	synctest.Test(t, func(t *testing.T) {
		read := func(i int64) (units int) {
			t.Helper()
			if _, err := d.reader.ReadChunk(t.Context(), f, i); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until what is fetched ahead is here
			for _, r := range d.swarm.requests() {
				var number, unit, n int
				_, _ = fmt.Sscanf(r, "%d:%d+%d", &number, &unit, &n)
				units += n
			}
			return units
		}
		const chunk = dag.ChunkSize / erasure.Unit
		if n := read(10); n > 3*chunk {
			t.Errorf("one chunk in the middle cost %d units", n)
		}
		if n := read(0) + read(1) + read(2); n < 6*chunk {
			t.Errorf("three chunks in order cost %d units: nothing was fetched ahead", n)
		}
	})
}

// A directory of the drive, and its table of inodes, are read through, too.
func TestDirectories(t *testing.T) {
	d := newDevice(t, newSwarm())
	p := &putter{b: pack.NewBuilder(22, nil), plains: map[link.Hash][]byte{}}
	record := func(id uint64) *dag.Inode {
		return &dag.Inode{ID: id, Mode: dag.ModeRegular | 0o644, Nlink: 1, Size: 1, Inline: []byte{byte(id)}}
	}
	dir, err := dag.EditDir(t.Context(), p, nameKey, link.Link{}, []dag.Change{{Name: "a", Record: record(1)}, {Name: "b", Record: record(2)}})
	if err != nil {
		t.Fatal(err)
	}
	links, err := dag.EditDir(t.Context(), p, nameKey, link.Link{}, []dag.Change{{Name: dag.InodeName(77), Record: record(77)}})
	if err != nil {
		t.Fatal(err)
	}
	entries := p.b.Entries()
	d.swarm.seal(t, 3, p.b)
	d.account(3, entries)
	var names []string
	err = d.reader.Dir(t.Context(), dir, func(name string, rec dag.Inode) error {
		names = append(names, fmt.Sprint(name, rec.ID))
		return nil
	})
	slices.Sort(names)
	if err != nil || fmt.Sprint(names) != "[a1 b2]" {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := d.reader.Linked(t.Context(), 77); !errors.Is(err, readerr.ErrAbsent) {
		t.Errorf("without a commit: %v", err)
	}
	d.reader.SetCommit(&commit.Commit{Links: links}, commit.Locator{})
	if rec, err := d.reader.Linked(t.Context(), 77); err != nil || rec.ID != 77 {
		t.Errorf("%+v, %v", rec, err)
	}
	if _, err := d.reader.Linked(t.Context(), 78); !errors.Is(err, readerr.ErrAbsent) {
		t.Errorf("an inode that is not there: %v", err)
	}
}

// Nobody waits for ever for a fetch that its own beginner gave up: the next one
// begins it anew.
func TestAbandonedFetch(t *testing.T) {
	swarm := newSwarm()
	d := newDevice(t, swarm)
	plains, entries := swarm.pack(t, 1, 3000)
	d.account(1, entries)
	synctest.Test(t, func(t *testing.T) {
		swarm.set(func(p *packs) { p.hold = make(chan struct{}) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		first, second := make(chan error, 1), make(chan []byte, 1)
		go func() {
			_, err := d.reader.Get(ctx, entries[0].Link)
			first <- err
		}()
		synctest.Wait()
		go func() {
			b, err := d.reader.Get(t.Context(), entries[0].Link)
			if err != nil {
				t.Error(err)
			}
			second <- b
		}()
		synctest.Wait()
		swarm.set(func(p *packs) { p.hold = nil })
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if b := <-second; !bytes.Equal(b, plains[0]) {
			t.Errorf("%d bytes", len(b))
		}
	})
}
