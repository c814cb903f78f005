package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"skep/cache/blocks"
	"skep/cache/readerr"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// hosted reads the shards that are held for others. One that is damaged is
// removed: its owner has it made anew.
func (c *checker) hosted(ctx context.Context) error {
	all := 0
	for _, id := range c.home.Hosted.Holdings() {
		if h, ok := c.home.Hosted.Holding(id); ok {
			all += h.Held.Count()
		}
	}
	c.step("checking shards held for others", int64(all))
	for _, id := range c.home.Hosted.Holdings() {
		c.r.HostedGroups++
		h, ok := c.home.Hosted.Holding(id)
		for n := uint16(0); ok && n < group.MaxPacks; n++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !h.Held.Has(n) {
				continue
			}
			c.r.HostedShards++
			c.did(1)
			if err := c.home.Hosted.Check(id, n); err != nil {
				c.problem("shard held for another", err)
			}
		}
	}
	return nil
}

// packFiles checks the packs of metadata that are kept here, block by block.
func (c *checker) packFiles(ctx context.Context) error {
	d := c.drive
	c.step("checking packs of metadata", d.Packs.Bytes())
	c.far.Bytes = true
	return d.Packs.List(func(id group.ID, n uint16) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.r.PackFiles++
		b, err := d.Packs.Get(id, n)
		c.did(int64(len(b)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it died since it was listed
		}
		var bad []link.Hash
		if err == nil {
			bad, err = checkPack(d.Read, b)
		}
		if err == nil {
			return nil
		}
		if bad == nil { // which, nobody can tell
			members, merr := d.Table.Members(id, n)
			if merr != nil {
				return merr
			}
			for _, m := range members {
				bad = append(bad, m.Link.Hash)
			}
		}
		done, stop := c.repair(ctx, func() error { return c.replace(ctx, id, n) })
		for _, path := range c.concerned(bad) {
			c.problem(path, fmt.Errorf("names, attributes or pieces of it, as kept in pack %d of group %v: %w%s", n, id, err, done))
		}
		return stop
	})
}

// elsewhere is what blocks are of that no directory or file leads to.
const elsewhere = "the commit, its block index, or what nothing needs any more"

// concerned are the paths of the directories and files to which blocks belong,
// or else of what is above them.
func (c *checker) concerned(bad []link.Hash) []string {
	paths := map[string]bool{}
	for _, h := range bad {
		paths[c.above(h)] = true
	}
	if len(paths) > 1 {
		delete(paths, elsewhere)
	}
	return slices.Sorted(maps.Keys(paths))
}

func (c *checker) above(h link.Hash) string {
	for range 256 {
		if path, ok := c.roots[h]; ok {
			return path
		}
		up, ok := c.parents[h]
		if !ok {
			break
		}
		h = up
	}
	return elsewhere
}

// checkPack compares each block of a pack with its hash, and returns those that
// are damaged; none where its index is.
func checkPack(read [32]byte, b []byte) (bad []link.Hash, err error) {
	class, ok := erasure.ClassFor(len(b))
	if !ok || class.Size() != len(b) {
		return nil, fmt.Errorf("%w: %d bytes", pack.ErrCorrupt, len(b))
	}
	entries, err := pack.ReadIndex(read, class, func(off, n int) ([]byte, error) {
		return bytes.Clone(b[off : off+n]), nil
	})
	for _, e := range entries {
		if block.HashOf(b[e.Offset:e.Offset+e.Length]) != e.Link.Hash {
			bad = append(bad, e.Link.Hash)
		}
	}
	if len(bad) > 0 {
		err = fmt.Errorf("%w: %d of its %d blocks", pack.ErrCorrupt, len(bad), len(entries))
	}
	return bad, err
}

// account counts references again, as far as what refers is here.
func (c *checker) account(ctx context.Context) error {
	d := c.drive
	if counted, err := d.Table.Counted(); err != nil || !counted {
		return err
	}
	roots, err := writeback.Roots(d.State)
	if err != nil {
		return err
	}
	all, err := c.metadata()
	if err != nil {
		return err
	}
	c.step("counting references", all)
	away := false
	var found []blocks.Fault
	err = d.Table.Audit(roots, func(l link.Link) ([]link.Link, error) {
		if l.Codec == link.Raw {
			return nil, nil
		}
		c.did(1)
		plain, err := c.reader.Get(ctx, l)
		if err != nil {
			away = away || errors.Is(err, readerr.ErrUnreachable)
			return nil, err
		}
		kids, err := writeback.Children(l, plain)
		for _, k := range kids {
			if k.Codec != link.Raw {
				c.parents[k.Hash] = l.Hash
			}
		}
		return kids, err
	}, func(f blocks.Fault) { found = append(found, f) })
	if away || ctx.Err() != nil { // the sums cannot come out right
		return errors.Join(err, ctx.Err())
	}
	for _, f := range found {
		c.problem("account of what is stored", f)
	}
	return err
}

// metadata is how many blocks there are, at most, that may refer to others.
func (c *checker) metadata() (n int64, err error) {
	err = c.drive.Table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Metadata {
			n += int64(p.Blocks)
		}
		return true
	})
	return n, err
}

var errDamaged = errors.New("differs here from what was committed")

// content compares what is here of a file with the newest commit: by the tags of
// its chunks, or, with remote, by what holders have. Whole says that it did not find
// any damage.
func (c *checker) content(ctx context.Context, ino tree.Ino, path string) (whole bool, err error) {
	var links []link.Link
	var damaged []int64
	d := c.drive
	err = d.Tree.CleanChunks(ctx, ino, 0, func(f dag.File, i int64, chunk []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if links == nil {
			err := dag.Chunks(ctx, c.reader, f, 0, f.Chunks(), func(_ int64, l link.Link) error {
				links = append(links, l)
				return nil
			})
			if err != nil {
				return err
			}
		}
		c.did(int64(len(chunk)) / 2)
		same, err := c.same(ctx, links[i], chunk)
		if err == nil && !same {
			damaged = append(damaged, i)
		}
		return err
	})
	if c.onlyAway(err) {
		c.r.Unchecked++
		err = nil
	}
	for _, i := range damaged {
		done, stop := c.repair(ctx, func() error { return c.giveBack(ctx, ino, i, links[i]) })
		c.problem(path, fmt.Errorf("the content from byte %d on %w%s", i*dag.ChunkSize, errDamaged, done))
		err = errors.Join(err, stop)
	}
	return len(damaged) == 0, err
}

// same reports whether a chunk is the content of a block.
func (c *checker) same(ctx context.Context, l link.Link, chunk []byte) (bool, error) {
	d := c.drive
	b, known, err := d.Table.Get(l.Hash)
	if err != nil {
		return false, err
	}
	if !c.opt.Remote && !(known && b.Tag != (block.Tag{})) {
		return true, nil
	}
	return d.IsBlock(ctx, l, b.Tag, chunk)
}
