package reseal

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"skep/cache/blocks"
	"skep/cache/readerr"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
)

// Lost are the packs of which too few shards are left.
type Lost map[group.ID]group.Bitmap

// has reports whether a place is in a lost pack.
func (l Lost) has(p blockindex.Place) bool {
	b := l[p.Group]
	return b.Has(p.Number)
}

// Drive is what is looked through.
type Drive struct {
	Tree   *tree.Tree
	Table  *blocks.Table
	Blocks dag.Getter    // nodes of files and directories
	Sealer *block.Sealer // of the drive's secret: what is here is told by its links
	// Anew has the next commit that looks at the directory with this root make it
	// from its entries.
	Anew func(root link.Link)
}

// Found is what became of the content of lost packs.
type Found struct {
	Again int      // files and folders of which something goes out again, with the next commit
	Gone  []string // files, and folders with such, of which something cannot be made again
	// Elsewhere is how many lost blocks belong to what was not looked at: folders
	// that were never opened on this device, or what is not a file's.
	Elsewhere int
}

// Look goes through all files and folders that this device knows, and has go out
// again what is lost and here.
func (d Drive) Look(ctx context.Context, lost Lost) (Found, error) {
	l := look{Drive: d, gone: map[link.Hash]bool{}}
	if err := l.needed(lost); err != nil || len(l.gone) == 0 {
		return l.found, err
	}
	err := l.dir(ctx, tree.Root, "/")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, seen := range l.gone {
		if !seen {
			l.found.Elsewhere++
		}
	}
	return l.found, err
}

// look is one Look.
type look struct {
	Drive
	nodes bool // some of what is gone are not chunks
	found Found

	mu   sync.Mutex         // guards gone: nodes are read ahead
	gone map[link.Hash]bool // blocks that no pack has: were they met in a file or folder?
}

// needed lists the blocks that something refers to and that lie in lost packs alone, or
// also in dead ones, which holders delete.
func (l *look) needed(lost Lost) error {
	groups, err := l.Table.Groups()
	if err != nil {
		return err
	}
	gone := make(Lost, len(groups))
	for _, g := range groups {
		g.Dead.Union(lost[g.ID])
		gone[g.ID] = g.Dead
	}
	for id, packs := range lost {
		for n := range uint16(group.MaxPacks) {
			if !packs.Has(n) {
				continue
			}
			members, err := l.Table.Members(id, n)
			if err != nil {
				return err
			}
			for _, b := range members {
				if b.Refs > 0 && isGone(b, gone) {
					l.gone[b.Link.Hash] = false
					l.nodes = l.nodes || b.Link.Codec != link.Raw
				}
			}
		}
	}
	return nil
}

func isGone(b blocks.Block, gone Lost) bool {
	for _, p := range b.Places {
		if !gone.has(p) {
			return false
		}
	}
	return true
}

// isGone reports whether no pack has a block, and takes note that it was met.
func (l *look) isGone(b link.Link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, gone := l.gone[b.Hash]
	if gone {
		l.gone[b.Hash] = true
	}
	return gone
}

// Get implements dag.Getter: what is gone is lost.
func (l *look) Get(ctx context.Context, b link.Link) ([]byte, error) {
	if l.isGone(b) {
		return nil, readerr.ErrLost
	}
	return l.Blocks.Get(ctx, b)
}

// dir looks through a folder and all below it, if its entries are here.
func (l *look) dir(ctx context.Context, ino tree.Ino, path string) error {
	if here, err := l.Tree.IsLoaded(ino); err != nil || !here {
		return err
	}
	if err := l.names(ctx, ino); err != nil {
		return err
	}
	var failed error
	err := l.Tree.EachEntry(ctx, ino, func(e tree.DirEntry) bool {
		failed = errors.Join(l.entry(ctx, e, path+e.Name), ctx.Err())
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil && ctx.Err() == nil { // of some entries, too much is with holders
		l.found.Gone = append(l.found.Gone, path)
	}
	return ctx.Err()
}

// entry looks at what a folder has.
func (l *look) entry(ctx context.Context, e tree.DirEntry, path string) error {
	switch e.Attr.Mode & 0o170000 {
	case 0o040000:
		return l.dir(ctx, e.Attr.Ino, path+"/")
	case 0o100000:
		err := l.file(ctx, e.Attr.Ino, path)
		if err == nil || errors.Is(err, tree.ErrNoSpace) {
			return err
		}
		l.found.Gone = append(l.found.Gone, path) // it cannot be read here: others may
	}
	return nil
}

// names has go out again what is lost of a folder itself: its entries are here.
func (l *look) names(ctx context.Context, ino tree.Ino) error {
	root, err := l.Tree.Committed(ino)
	if err != nil || root.IsZero() || !l.nodes {
		return err
	}
	err = dag.WalkDir(ctx, l, root, func(string, dag.Inode) error { return nil })
	if !errors.Is(err, readerr.ErrLost) {
		return ctx.Err()
	}
	l.Anew(root)
	changed, err := l.Tree.AgainDir(ino)
	if changed {
		l.found.Again++
	}
	return err
}

// part is how many chunks of a file are looked at together: a sparse file may have any
// number, in holes that take no room anywhere.
const part = 1 << 16

// file has go out again what is lost of a file and here.
func (l *look) file(ctx context.Context, ino tree.Ino, path string) error {
	s, err := l.Tree.ContentState(ctx, ino)
	if err != nil || s.Content.IsZero() {
		return err
	}
	f := dag.File{Root: s.Content, Size: s.ContentSize}
	var taken, left int
	// From the end: as soon as something goes out again, the tail, which is less than a
	// chunk, counts as changed.
	for from := (f.Chunks() - 1) / part * part; from >= 0; from -= part {
		t, n, err := l.part(ctx, ino, f, from, min(from+part, f.Chunks()))
		if err != nil {
			return err
		}
		taken, left = taken+t, left+n
	}
	if taken+left == 0 {
		return nil
	}
	now, err := l.Tree.Committed(ino)
	if err == nil && now != s.Content { // a commit came between, and has some of it
		return l.file(ctx, ino, path)
	}
	if taken > 0 {
		l.found.Again++
	}
	if left > 0 {
		l.found.Gone = append(l.found.Gone, path)
	}
	return err
}

// part has go out again what is lost and here of the chunks from from up to, but not
// including, to; it returns how many these are, and how many are left.
func (l *look) part(ctx context.Context, ino tree.Ino, f dag.File, from, to int64) (taken, left int, err error) {
	lost, err := l.chunks(ctx, f, from, to)
	if err != nil || len(lost) == 0 {
		return 0, 0, err
	}
	whole, err := l.whole(ctx, ino, f, from, lost)
	if err != nil {
		return 0, 0, err
	}
	return l.Tree.Again(ctx, ino, slices.Collect(maps.Keys(lost)), whole)
}

// chunks returns the links of those of the chunks from from up to, but not including, to
// that are gone; zero links of all of them, if nodes above are.
func (l *look) chunks(ctx context.Context, f dag.File, from, to int64) (map[int64]link.Link, error) {
	lost := map[int64]link.Link{}
	err := dag.Chunks(ctx, l, f, from, to, func(i int64, b link.Link) error {
		if l.isGone(b) {
			lost[i] = b
		}
		return nil
	})
	if errors.Is(err, readerr.ErrLost) {
		for i := from; i < to; i++ {
			lost[i] = link.Link{}
		}
		err = nil
	}
	if err != nil && ctx.Err() == nil {
		return lost, nil // it is not known to be lost
	}
	return lost, err
}

// errPast ends looking at what is behind the chunks in question.
var errPast = errors.New("no more of them")

// whole returns which of the chunks, of a part that begins at from, are here as they
// were committed.
func (l *look) whole(ctx context.Context, ino tree.Ino, of dag.File, from int64, chunks map[int64]link.Link) (whole []int64, err error) {
	err = l.Tree.CleanChunks(ctx, ino, from, func(f dag.File, i int64, plain []byte) error {
		if i >= from+part {
			return errPast
		}
		b, wanted := chunks[i]
		if !wanted || f != of {
			return ctx.Err()
		}
		same, err := l.isContent(b, plain)
		if same {
			whole = append(whole, i)
		}
		return err
	})
	if errors.Is(err, errPast) {
		err = nil
	}
	return whole, err
}

// isContent reports whether plain is the content of a block; if the link is zero,
// because nobody knows it, of any block of the drive. Tags tell: a block may have been
// compressed otherwise than it would be here.
func (d *Drive) isContent(l link.Link, plain []byte) (bool, error) {
	tag := d.Sealer.Tag(link.Raw, plain)
	if l.IsZero() {
		_, known, err := d.Table.Find(tag)
		return known, err
	}
	b, known, err := d.Table.Get(l.Hash)
	return known && b.Tag == tag, err
}
