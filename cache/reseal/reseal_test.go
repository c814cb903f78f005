package reseal

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/backing"
	"skep/cache/blocks"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
)

var ctx = context.Background()

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// packs of the drive under test: number 0 has what is put first, and so on.
var theGroup = group.Group{ID: group.ID{1}, Class: 24, Kind: group.Content, Coding: erasure.NewCoding(1, 2), Slots: make([]group.PeerKey, 2)}

// committed is the newest commit of a drive, in memory, with the account of it.
type committed struct {
	t      *testing.T
	table  *blocks.Table
	blocks map[link.Link][]byte
	next   map[bool][]blocks.Stored // of the next two packs: chunks (true), nodes
	number uint16
	asked  atomic.Int64       // blocks that were read
	differ map[link.Link]bool // files of which other content comes here than was committed
}

func (c *committed) Put(_ context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error) {
	s, err := block.NewSealer(secret.Key{1}).Seal(codec, plain, nil)
	c.blocks[s.Link] = bytes.Clone(plain)
	chunk := codec == link.Raw
	e := pack.Entry{Link: s.Link, Tag: s.Tag, Offset: uint32(16 * len(c.next[chunk])), Length: uint32(len(s.Ciphertext))}
	c.next[chunk] = append(c.next[chunk], blocks.Stored{Entry: e, Refs: slices.Clone(refs)})
	return s.Link, err
}

func (c *committed) Get(_ context.Context, l link.Link) ([]byte, error) {
	c.asked.Add(1)
	return bytes.Clone(c.blocks[l]), nil
}

// pack enters what was put since the last call, and returns the numbers of the packs
// that have the chunks and the nodes.
func (c *committed) pack() (chunks, nodes uint16) {
	c.t.Helper()
	for _, chunk := range []bool{true, false} {
		if err := c.table.AddPack(blocks.Pack{Group: theGroup.ID, Number: c.number}, nil, c.next[chunk]); err != nil {
			c.t.Fatal(err)
		}
		delete(c.next, chunk)
		c.number++
	}
	return c.number - 2, c.number - 1
}

// file puts the content of a file.
func (c *committed) file(content []byte) dag.File {
	part := func(i int64) []byte { return content[i*dag.ChunkSize : min(int64(len(content)), (i+1)*dag.ChunkSize)] }
	chunks := (int64(len(content)) + dag.ChunkSize - 1) / dag.ChunkSize
	return must(dag.WriteFile(ctx, c, dag.File{}, int64(len(content)), []dag.Run{{From: 0, To: chunks}}, func(ctx context.Context, i int64) (link.Link, error) {
		return c.Put(ctx, link.Raw, part(i), nil)
	}))
}

// dir puts a directory.
func (c *committed) dir(entries map[string]dag.Inode) link.Link {
	var changes []dag.Change
	for name, rec := range entries {
		changes = append(changes, dag.Change{Name: name, Record: &rec})
	}
	return must(dag.EditDir(ctx, c, secret.Key{2}, link.Link{}, changes))
}

// Dir, Linked, ReadChunk and LendChunk implement tree.Content.
func (c *committed) Dir(ctx context.Context, root link.Link, fn func(name string, rec dag.Inode) error) error {
	return dag.WalkDir(ctx, c, root, fn)
}

func (c *committed) Linked(context.Context, uint64) (dag.Inode, error) {
	return dag.Inode{}, errors.New("there are none")
}

func (c *committed) ReadChunk(ctx context.Context, f dag.File, i int64) (chunk []byte, err error) {
	err = dag.Chunks(ctx, c, f, i, i+1, func(_ int64, l link.Link) error {
		chunk, err = c.Get(ctx, l)
		return err
	})
	if c.differ[f.Root] {
		chunk[0] ^= 1
	}
	return chunk, err
}

func (c *committed) LendChunk(ctx context.Context, f dag.File, i int64, use func(chunk []byte)) error {
	chunk, err := c.ReadChunk(ctx, f, i)
	use(chunk)
	return err
}

// device has a drive: the files below are committed, and nothing of them is here.
type device struct {
	*committed
	drive  Drive
	inodes uint64
	anew   []link.Link
	clock  atomic.Int64
}

func newDevice(t *testing.T) *device {
	st := must(state.Open(t.TempDir()))
	t.Cleanup(func() { _ = st.Close() })
	table := blocks.New(st)
	if err := table.PutGroup(theGroup); err != nil {
		t.Fatal(err)
	}
	d := &device{committed: &committed{t: t, table: table, blocks: map[link.Link][]byte{}, next: map[bool][]blocks.Stored{}, differ: map[link.Link]bool{}}, inodes: 1 << 33}
	d.clock.Store(1000)
	d.drive = Drive{Table: table, Blocks: d.committed, Sealer: block.NewSealer(secret.Key{1}),
		Anew: func(root link.Link) { d.anew = append(d.anew, root) }}
	return d
}

// open opens the tree of a commit with this root.
func (d *device) open(root link.Link) {
	d.t.Helper()
	dir := d.t.TempDir()
	st := must(state.Open(filepath.Join(dir, "state")))
	if err := tree.Adopt(st, dag.Inode{ID: uint64(tree.Root), Mode: 0o040755, Nlink: 2, Content: root}, 0, 0); err != nil {
		d.t.Fatal(err)
	}
	d.drive.Tree = must(tree.Open(tree.Options{State: st, Backing: must(backing.Open(filepath.Join(dir, "files"))), Content: d.committed, Device: 3,
		Now: func() time.Time { return time.Unix(d.clock.Load(), 0) }}))
	d.t.Cleanup(func() { d.drive.Tree.Close(); _ = st.Close() })
}

// of is the record of a new inode.
func (d *device) of(f dag.File) dag.Inode {
	d.inodes++
	return dag.Inode{ID: d.inodes, Mode: 0o100644, Nlink: 1, Size: f.Size, Content: f.Root}
}

func (d *device) folder(entries map[string]dag.Inode) dag.Inode {
	d.inodes++
	return dag.Inode{ID: d.inodes, Mode: 0o040755, Nlink: 2, Content: d.dir(entries)}
}

// fetch brings a chunk of a file here.
func (d *device) fetch(path string, chunk int64) {
	d.t.Helper()
	f := must(d.drive.Tree.Open(ctx, must(d.drive.Tree.Find(ctx, path)).Ino, 0))
	defer f.Release()
	if _, err := f.ReadAt(ctx, make([]byte, 100), chunk*dag.ChunkSize); err != nil {
		d.t.Fatal(err)
	}
}

// fetchAll brings a file here.
func (d *device) fetchAll(path string) {
	d.t.Helper()
	if err := d.drive.Tree.Fetch(ctx, must(d.drive.Tree.Find(ctx, path)).Ino); err != nil {
		d.t.Fatal(err)
	}
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func lost(numbers ...uint16) Lost {
	var b group.Bitmap
	for _, n := range numbers {
		b.Add(n)
	}
	return Lost{theGroup.ID: b}
}

const mib = 1 << 20

// Of what is in lost packs and nowhere else goes out again what is here as it was
// committed; the rest is named, or counted where nobody has looked.
func TestLook(t *testing.T) {
	d := newDevice(t)
	here, away, partly, altered, unseen, well := d.file(noise(1, 2*mib+9)), d.file(noise(2, mib)), d.file(noise(3, 3*mib)), d.file(noise(4, mib)), d.file(noise(5, mib)), d.file(noise(6, mib))
	gone, _ := d.pack()
	d.file(noise(6, mib)) // the content of well is in another pack, too
	names := d.folder(map[string]dag.Inode{"here": d.of(here), "away": d.of(away), "partly": d.of(partly), "altered": d.of(altered), "well": d.of(well)})
	closed := d.folder(map[string]dag.Inode{"unseen": d.of(unseen)})
	root := d.dir(map[string]dag.Inode{"dir": names, "closed": closed})
	d.pack()
	d.open(root)
	d.fetchAll("dir/here")
	d.fetch("dir/partly", 1)
	d.differ[altered.Root] = true
	d.fetchAll("dir/altered")
	d.fetchAll("dir/well")

	d.clock.Store(1000 + 48*3600)
	dir := must(d.drive.Tree.Find(ctx, "dir"))
	found, err := d.drive.Look(ctx, lost(gone))
	slices.Sort(found.Gone)
	if err != nil || found.Again != 2 || !slices.Equal(found.Gone, []string{"/dir/altered", "/dir/away", "/dir/partly"}) || found.Elsewhere != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	for name, want := range map[string]bool{"here": true, "partly": true, "away": false, "altered": false, "well": false} {
		if is, err := d.drive.Tree.IsPending(must(d.drive.Tree.Find(ctx, "dir/"+name)).Ino); is != want || err != nil {
			t.Errorf("%s goes out again: %v, %v", name, is, err)
		}
	}
	if now := must(d.drive.Tree.Find(ctx, "dir")); now.Atime != dir.Atime {
		t.Errorf("the folder was accessed at %v, before at %v", now.Atime, dir.Atime)
	}
	if len(d.anew) > 0 {
		t.Errorf("%d folders are made anew", len(d.anew))
	}
}

// Where a node of a file is lost, its chunks count that any block of the drive is.
func TestLostNodeOfAFile(t *testing.T) {
	d := newDevice(t)
	f := d.file(noise(1, 2*mib))
	_, gone := d.pack()
	root := d.dir(map[string]dag.Inode{"file": d.of(f)})
	d.pack()
	d.open(root)
	d.fetchAll("file")
	if found, err := d.drive.Look(ctx, lost(gone)); err != nil || found.Again != 1 || found.Gone != nil || found.Elsewhere != 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// Of what is sparse, parts are looked at one by one: what is here of the last one goes
// out again, whatever holes lie before it.
func TestSparseFile(t *testing.T) {
	d := newDevice(t)
	const holes = part + 7
	size := int64(holes+1) * dag.ChunkSize
	content := noise(3, dag.ChunkSize)
	zero := must(d.Put(ctx, link.Raw, make([]byte, dag.ChunkSize), nil))
	last := must(d.Put(ctx, link.Raw, content, nil))
	f := must(dag.WriteFile(ctx, d, dag.File{}, size, []dag.Run{{From: 0, To: holes, Leaf: zero}, {From: holes, To: holes + 1, Leaf: last}}, nil))
	gone, nodes := d.pack()
	root := d.dir(map[string]dag.Inode{"file": d.of(f)})
	d.pack()
	d.open(root)
	d.fetch("file", holes)
	// The holes cannot go out again: they were not read. What was is found.
	found, err := d.drive.Look(ctx, lost(gone, nodes))
	if err != nil || found.Again != 1 || !slices.Equal(found.Gone, []string{"/file"}) {
		t.Errorf("%+v, %v", found, err)
	}
}

// The tail of a file, which is less than a chunk, goes out again whatever does so of a
// part before it.
func TestTailBehindAPart(t *testing.T) {
	d := newDevice(t)
	const first, holes = 3, part + 7
	zero := must(d.Put(ctx, link.Raw, make([]byte, dag.ChunkSize), nil))
	d.pack()
	chunk, tail := must(d.Put(ctx, link.Raw, noise(3, dag.ChunkSize), nil)), must(d.Put(ctx, link.Raw, noise(4, 1000), nil))
	gone, _ := d.pack()
	f := must(dag.WriteFile(ctx, d, dag.File{}, holes*dag.ChunkSize+1000, []dag.Run{{From: 0, To: first, Leaf: zero},
		{From: first, To: first + 1, Leaf: chunk}, {From: first + 1, To: holes, Leaf: zero}, {From: holes, To: holes + 1, Leaf: tail}}, nil))
	root := d.dir(map[string]dag.Inode{"file": d.of(f)})
	d.pack()
	d.open(root)
	d.fetch("file", first)
	d.fetch("file", holes)
	if found, err := d.drive.Look(ctx, lost(gone)); err != nil || found.Again != 1 || found.Gone != nil {
		t.Errorf("%+v, %v", found, err)
	}
}

// A chunk is told by its tag: who stored it may have compressed it otherwise.
func TestOtherCompression(t *testing.T) {
	d := newDevice(t)
	plain := bytes.Repeat([]byte("it is compressed well"), mib/21)
	p := must(block.NewSealer(secret.Key{1}).Prepare(link.Raw, plain))
	s := p.Seal(nil)
	d.blocks[s.Link] = plain
	e := pack.Entry{Link: s.Link, Tag: s.Tag, Offset: 16, Length: uint32(len(s.Ciphertext))}
	d.next[true] = append(d.next[true], blocks.Stored{Entry: e})
	gone, _ := d.pack()
	root := d.dir(map[string]dag.Inode{"file": d.of(dag.File{Root: s.Link, Size: int64(len(plain))})})
	d.pack()
	d.open(root)
	d.fetchAll("file")
	if found, err := d.drive.Look(ctx, lost(gone)); err != nil || found.Again != 1 || found.Gone != nil {
		t.Errorf("%+v, %v", found, err)
	}
}

// A folder of which nodes are lost is made anew from its entries, which are here; one
// that was not opened is counted.
func TestLostFolders(t *testing.T) {
	d := newDevice(t)
	small := d.file(noise(1, mib))
	well, _ := d.pack()
	names, closed := d.folder(map[string]dag.Inode{"file": d.of(small)}), d.folder(map[string]dag.Inode{"other": d.of(small)})
	_, gone := d.pack()
	root := d.dir(map[string]dag.Inode{"dir": names, "closed": closed})
	d.pack()
	d.open(root)
	must(d.drive.Tree.Find(ctx, "dir/file"))
	found, err := d.drive.Look(ctx, lost(gone))
	if err != nil || found.Again != 1 || found.Gone != nil || found.Elsewhere != 1 || !slices.Equal(d.anew, []link.Link{names.Content}) {
		t.Errorf("%+v, anew %d, %v", found, len(d.anew), err)
	}
	if again, err := d.drive.Look(ctx, lost(well, gone)); err != nil || !slices.Equal(again.Gone, []string{"/dir/file"}) {
		t.Errorf("with the content lost, too: %+v, %v", again, err)
	}
}

// While nothing that is needed is lost, nothing is looked at; and whoever gives up
// waiting ends it.
func TestLookAtNothing(t *testing.T) {
	d := newDevice(t)
	d.file(noise(1, mib)) // nothing refers to it
	unneeded, _ := d.pack()
	f := d.file(noise(2, mib))
	needed, _ := d.pack()
	root := d.dir(map[string]dag.Inode{"file": d.of(f)})
	d.pack()
	d.open(root)
	must(d.drive.Tree.Find(ctx, "file"))
	d.asked.Store(0)
	for _, l := range []Lost{nil, lost(), lost(unneeded)} {
		if found, err := d.drive.Look(ctx, l); err != nil || found.Again != 0 || found.Gone != nil || found.Elsewhere != 0 {
			t.Errorf("%+v, %v", found, err)
		}
	}
	if n := d.asked.Load(); n > 0 {
		t.Errorf("%d blocks were read for nothing", n)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if found, err := d.drive.Look(ended, lost(needed)); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", found, err)
	}
}
