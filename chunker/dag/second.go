package dag

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-unixfsnode"
	"github.com/ipfs/go-unixfsnode/file"
	"github.com/ipfs/go-unixfsnode/hamt"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/node/basicnode"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// What this package wrote is readable for it, even where writer and reader are
// wrong in the same way. So there is a second reader, go-unixfsnode on a System, and
// a check reads by both at the same time. Bytes that our own decoders refuse never
// reach the other one.

// ErrDiffers says that go-unixfsnode does not see in blocks what this package does.
var ErrDiffers = errors.New("another reader of UnixFS sees something else")

func differs(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDiffers}, args...)...)
}

// CheckDir reads a directory by both readers, and calls fn for each entry once they
// agree on it: that it is there, what it links to, and that who looks for it finds
// it, under the name that the secret gives it too. It ends with the first error, of
// fn too, and keeps no more in memory than a 256th of a large directory.
func CheckDir(ctx context.Context, g Getter, names secret.Key, root link.Link, fn func(name string, rec Inode) error) error {
	d, err := loadDir(ctx, g, root)
	if err != nil || root.IsZero() {
		return err
	}
	c := newDirCheck(ctx, g, names, fn)
	nd, err := c.sys.Load(ipld.LinkContext{Ctx: ctx}, IPLD(root), dagpb.Type.PBNode)
	if err != nil {
		return c.read.blame(err)
	}
	if d.slots == nil {
		err = c.plain(d.entries, nd)
	} else {
		err = c.shards(d.slots, nd.(dagpb.PBNode))
	}
	if err != nil {
		return fmt.Errorf("%v: %w", root, err)
	}
	return nil
}

// dirCheck is one CheckDir.
type dirCheck struct {
	ctx   context.Context
	read  *secondGetter
	sys   *System
	names namer
	fn    func(name string, rec Inode) error
}

func newDirCheck(ctx context.Context, g Getter, names secret.Key, fn func(string, Inode) error) *dirCheck {
	read := &secondGetter{g: g}
	return &dirCheck{ctx: ctx, read: read, sys: LinkSystem(ctx, read, nil), names: newNamer(names), fn: fn}
}

// plain compares a directory in one node.
func (c *dirCheck) plain(ours []entry, nd ipld.Node) error {
	theirs, err := unixfsnode.Reify(ipld.LinkContext{Ctx: c.ctx}, nd, &c.sys.LinkSystem)
	if err != nil {
		return c.read.blame(err)
	}
	return c.compare(ours, theirs, theirs.MapIterator())
}

// shards compares a HAMT, slot by slot of its root. Theirs is made anew for each, as
// it keeps all that it has read.
func (c *dirCheck) shards(slots []slot, nd dagpb.PBNode) error {
	if n := nd.FieldLinks().Length(); n != int64(len(slots)) {
		return differs("%d slots, not %d", n, len(slots))
	}
	for i := range slots {
		ours, err := gather(c.ctx, c.read.g, place{}, &slots[i], nil)
		if err != nil {
			return err
		}
		theirs, err := hamt.AttemptHAMTShardFromNode(c.ctx, nd, &c.sys.LinkSystem)
		if err != nil {
			return c.read.blame(err)
		}
		var below ipld.MapIterator
		if slots[i].isShard() {
			if below, err = c.below(nd.FieldLinks().Lookup(int64(i))); err != nil {
				return err
			}
		}
		if err := c.compare(ours, theirs, below); err != nil {
			return err
		}
	}
	return nil
}

// gather appends the entries in and below a slot of the shard at p, in order.
func gather(ctx context.Context, g Getter, p place, s *slot, to []entry) ([]entry, error) {
	if !s.isShard() {
		return append(to, s.entry), nil
	}
	slots, err := loadShard(ctx, g, p, s)
	for i := range slots {
		if to, err = gather(ctx, g, p.below(s.index), &slots[i], to); err != nil {
			break
		}
	}
	return to, err
}

// below iterates over the shard behind a link, as they see it.
func (c *dirCheck) below(l dagpb.PBLink) (ipld.MapIterator, error) {
	nd, err := c.sys.Load(ipld.LinkContext{Ctx: c.ctx}, l.FieldHash().Link(), dagpb.Type.PBNode)
	if err != nil {
		return nil, c.read.blame(err)
	}
	shard, err := hamt.AttemptHAMTShardFromNode(c.ctx, nd, &c.sys.LinkSystem)
	if err != nil {
		return nil, c.read.blame(err)
	}
	return shard.MapIterator(), nil
}

// compare holds our entries against what they list, unless that is nil, and against
// what they find by each name.
func (c *dirCheck) compare(ours []entry, theirs ipld.Node, listed ipld.MapIterator) error {
	for i := range ours {
		e := &ours[i]
		if listed != nil {
			if err := c.sameNext(e, listed); err != nil {
				return err
			}
		}
		found, err := theirs.LookupByString(e.name)
		if err != nil {
			return c.read.blame(err)
		}
		if err := sameLink(e, found); err != nil {
			return err
		}
		if err := c.visit(e); err != nil {
			return err
		}
	}
	if listed != nil && !listed.Done() {
		return differs("there is an entry after %q", ours[len(ours)-1].name[prefixLen:])
	}
	return nil
}

// sameNext compares an entry with the next one that they list.
func (c *dirCheck) sameNext(e *entry, listed ipld.MapIterator) error {
	k, v, err := listed.Next()
	if err != nil {
		return c.read.blame(err)
	}
	if name, err := k.AsString(); err != nil || name != e.name {
		return differs("%q is not where %q is", e.name[prefixLen:], name)
	}
	return sameLink(e, v)
}

func sameLink(e *entry, theirs ipld.Node) error {
	l, err := theirs.AsLink()
	if err != nil || l.Binary() != string(e.cid) {
		return differs("%q leads elsewhere", e.name[prefixLen:])
	}
	return nil
}

// visit calls fn for an entry that is where its name belongs.
func (c *dirCheck) visit(e *entry) error {
	name, err := realName(e.name)
	if err != nil {
		return err
	}
	if c.names.stored(name) != e.name {
		return corrupt("who looks for %q does not find it", name)
	}
	rec, err := e.inode(c.ctx, c.read.g)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return c.fn(name, rec)
}

// OpenFile returns the content of a file as go-unixfsnode reads it.
func OpenFile(ctx context.Context, g Getter, f File) (io.ReadSeeker, error) {
	sys := LinkSystem(ctx, g, nil)
	var form ipld.NodePrototype = dagpb.Type.PBNode
	if f.Root.Codec == link.Raw {
		form = basicnode.Prototype.Bytes
	}
	nd, err := sys.Load(ipld.LinkContext{Ctx: ctx}, IPLD(f.Root), form)
	if err != nil {
		return nil, err
	}
	content, err := file.NewUnixFSFile(ctx, nd, &sys.LinkSystem)
	if err != nil {
		return nil, err
	}
	return content.AsLargeBytes()
}

// CheckFile compares how long a file is, and which chunk is where in it, as both
// readers see it. No chunk is fetched.
func CheckFile(ctx context.Context, g Getter, f File) error {
	c := fileCheck{f: f, read: &secondGetter{g: g, blanks: true}}
	err := Chunks(ctx, g, f, 0, f.Chunks(), func(i int64, l link.Link) error { return c.next(ctx, i, l) })
	if err == nil && c.theirs != nil {
		err = c.ends(ctx)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", f.Root, err)
	}
	return nil
}

// fileCheck is one CheckFile.
type fileCheck struct {
	f      File
	read   *secondGetter
	theirs io.ReadSeeker // opened at the first chunk, when the root is known to be in order
}

// next compares which chunk comes next. For them, each has a single byte: where they
// begin is compared by seeking.
func (c *fileCheck) next(ctx context.Context, i int64, l link.Link) (err error) {
	c.read.begin(1)
	if c.theirs == nil {
		if c.theirs, err = OpenFile(ctx, c.read, c.f); err != nil {
			return c.read.blame(err)
		}
	}
	return c.expect(i, l, 1)
}

// expect reads n bytes, which must come from the chunk i alone.
func (c *fileCheck) expect(i int64, l link.Link, n int64) error {
	if _, err := io.CopyN(io.Discard, c.theirs, n); err != nil {
		return c.read.blame(fmt.Errorf("chunk %d: %w", i, err))
	}
	if len(c.read.chunks) != 1 || c.read.chunks[0] != l {
		return differs("chunk %d is another", i)
	}
	return nil
}

// ends compares the length, and where seeking leads: to the middle of the file, and
// to its last byte.
func (c *fileCheck) ends(ctx context.Context) error {
	if n, err := c.theirs.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return c.read.blame(errors.New("it does not end with the last chunk"))
	}
	if c.f.Root.Codec == link.Raw {
		return nil // how long a chunk is shows when it is read
	}
	if n, err := c.theirs.Seek(0, io.SeekEnd); err != nil || n != c.f.Size {
		return c.read.blame(fmt.Errorf("%d bytes, not %d", n, c.f.Size))
	}
	for _, at := range []int64{c.f.Size / 2, c.f.Size - 1} {
		if err := c.seek(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// seek compares where the content comes from that follows a position, up to the end
// of its chunk.
func (c *fileCheck) seek(ctx context.Context, at int64) error {
	i := at / ChunkSize
	return Chunks(ctx, c.read.g, c.f, i, i+1, func(_ int64, l link.Link) error {
		n := bytesOf(i, 1, c.f.Size)
		c.read.begin(n)
		if _, err := c.theirs.Seek(at, io.SeekStart); err != nil {
			return c.read.blame(err)
		}
		return c.expect(i, l, n-at%ChunkSize)
	})
}

// secondGetter is what their reader reads from. It notes the error for which that
// may have to give up, as not all of theirs say so.
type secondGetter struct {
	g   Getter
	err error // the first one

	blanks bool        // chunks are not fetched: they read as zeroes
	blank  []byte      // the one that is read now
	chunks []link.Link // that were asked for since begin
}

// begin makes each chunk one of n bytes from now on.
func (s *secondGetter) begin(n int64) { s.blank, s.chunks = make([]byte, n), s.chunks[:0] }

// Get implements Getter.
func (s *secondGetter) Get(ctx context.Context, l link.Link) ([]byte, error) {
	if s.blanks && l.Codec == link.Raw {
		s.chunks = append(s.chunks, l)
		return s.blank, nil
	}
	b, err := s.g.Get(ctx, l)
	if err != nil && s.err == nil {
		s.err = err
	}
	return b, err
}

// blame says why their reader failed: for want of a block, or by itself.
func (s *secondGetter) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	return differs("%v", err)
}
