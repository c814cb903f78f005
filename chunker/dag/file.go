package dag

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"skep/chunker/link"
)

// File is a file's content: the root of its DAG and its size. The root of a file
// of one chunk is that chunk, and the empty file has the zero link.
type File struct {
	Root link.Link
	Size int64 // bytes
}

// Chunks returns the number of chunks of f.
func (f File) Chunks() int64 { return chunksOf(f.Size) }

// check reports whether root and size can belong together.
func (f File) check() error {
	if f.Size < 0 {
		return fmt.Errorf("file of %d bytes", f.Size)
	}
	if f.Size == 0 && f.Root.IsZero() {
		return nil
	}
	if f.Size == 0 || f.Root.IsZero() || !rightCodec(f.tree()) {
		return fmt.Errorf("file of %d bytes with a root that does not fit", f.Size)
	}
	return nil
}

// tree is f as a subtree.
func (f File) tree() sub {
	t := sub{link: f.Root, n: f.Chunks(), size: f.Size, tsize: -1}
	if t.n == 1 {
		t.tsize = t.size
	}
	return t
}

// Run is a range of chunks, from From up to, but not including, To.
type Run struct {
	From, To int64
	// Leaf, unless it is zero, is the one chunk that is at each place of the
	// run: the chunk of zeroes, for a hole. A run of more than one chunk with a
	// Leaf must not contain a last chunk that is shorter than the others.
	Leaf link.Link
}

// WriteFile makes the file of size bytes that differs from old in the chunks of
// changed, sorted runs that do not overlap and end at the new end at most. A zero
// old makes a new file. Leaf is asked, in ascending order and never concurrently,
// for the link of each chunk in a run without a Leaf; it may block until somebody
// has sealed that chunk.
//
// A chunk whose length changes has changed too: where the size does, changed must
// hold the last chunk of the shorter file, if it is not whole, and all that lies
// behind the end of old.
//
// Only the nodes above changed chunks are read and written; identical subtrees of
// runs with a Leaf are made once. The result is the very DAG that the stock
// builder gives for the same content.
func WriteFile(ctx context.Context, s Store, old File, size int64, changed []Run, leaf func(ctx context.Context, index int64) (link.Link, error)) (File, error) {
	if err := old.check(); err != nil {
		return File{}, fmt.Errorf("write file: %w: %w", ErrCorrupt, err)
	}
	if size < 0 {
		return File{}, fmt.Errorf("write file: %d bytes", size)
	}
	w := &fileWriter{store: s, size: size, runs: changed, leaf: leaf, uniform: make(map[uniformKey]sub)}
	if err := w.checkRuns(old); err != nil {
		return File{}, fmt.Errorf("write file: %w", err)
	}
	if size == 0 {
		return File{}, nil
	}
	var from *sub
	if old.Size > 0 {
		t := old.tree()
		from = &t
	}
	t, err := w.build(ctx, 0, chunksOf(size), from)
	if err != nil {
		return File{}, fmt.Errorf("write file: %w", err)
	}
	return File{Root: t.link, Size: size}, nil
}

// ReachFile reads the nodes of old that WriteFile reads for the same change, and writes
// nothing.
func ReachFile(ctx context.Context, g Getter, old File, size int64, changed []Run) error {
	leaf := func(context.Context, int64) (link.Link, error) { return link.Link{Codec: link.Raw}, nil }
	_, err := WriteFile(ctx, unstored{g}, old, size, changed, leaf)
	return err
}

// unstored is a Store that keeps nothing, and gives all blocks of a codec the same link.
type unstored struct{ Getter }

func (unstored) Put(_ context.Context, codec uint64, _ []byte, _ []link.Link) (link.Link, error) {
	return link.Link{Codec: codec}, nil
}

// fileWriter is one WriteFile.
type fileWriter struct {
	store   Store
	size    int64
	runs    []Run
	leaf    func(ctx context.Context, index int64) (link.Link, error)
	uniform map[uniformKey]sub
}

// uniformKey names a tree over n whole chunks that are all the same.
type uniformKey struct {
	leaf link.Link
	n    int64
}

// checkRuns checks what WriteFile demands of its caller.
func (w *fileWriter) checkRuns(old File) error {
	chunks, last := chunksOf(w.size), int64(0)
	for _, r := range w.runs {
		if r.From < last || r.To <= r.From || r.To > chunks {
			return fmt.Errorf("run of chunks %d to %d after %d in a file of %d", r.From, r.To, last, chunks)
		}
		if !r.Leaf.IsZero() && r.Leaf.Codec != link.Raw {
			return fmt.Errorf("the leaf of run %d to %d is no chunk", r.From, r.To)
		}
		if !r.Leaf.IsZero() && r.To == chunks && r.To-r.From > 1 && w.size%ChunkSize != 0 {
			return fmt.Errorf("run of chunks %d to %d contains a shorter one", r.From, r.To)
		}
		last = r.To
	}
	if from, to := w.resized(old); !w.covered(from, to) {
		return fmt.Errorf("from %d to %d bytes without chunks %d to %d", old.Size, w.size, from, to)
	}
	return nil
}

// resized is the range of chunks whose length differs between old and new.
func (w *fileWriter) resized(old File) (from, to int64) {
	if old.Size == w.size {
		return 0, 0
	}
	shorter := min(old.Size, w.size)
	from = shorter / ChunkSize
	if w.size > old.Size {
		return from, chunksOf(w.size)
	}
	return from, chunksOf(shorter)
}

// runAt returns the index of the first run that ends behind a chunk.
func (w *fileWriter) runAt(chunk int64) int {
	return sort.Search(len(w.runs), func(i int) bool { return w.runs[i].To > chunk })
}

// touched reports whether any chunk of a range has changed.
func (w *fileWriter) touched(from, to int64) bool {
	i := w.runAt(from)
	return i < len(w.runs) && w.runs[i].From < to
}

// covered reports whether each chunk of a range has changed.
func (w *fileWriter) covered(from, to int64) bool {
	for i := w.runAt(from); from < to; i++ {
		if i == len(w.runs) || w.runs[i].From > from {
			return false
		}
		from = w.runs[i].To
	}
	return true
}

// uniformLeaf returns the one chunk that is at each place of a range, if the
// range lies in one run.
func (w *fileWriter) uniformLeaf(from, to int64) (link.Link, bool) {
	i := w.runAt(from)
	if i == len(w.runs) {
		return link.Link{}, false
	}
	r := &w.runs[i]
	return r.Leaf, !r.Leaf.IsZero() && r.From <= from && to <= r.To
}

// build makes the tree over n chunks from first on. Old, if not nil, is what was
// there: a tree that begins at the same chunk.
func (w *fileWriter) build(ctx context.Context, first, n int64, old *sub) (sub, error) {
	if w.covered(first, first+n) {
		old = nil
	}
	if l, ok := w.uniformLeaf(first, first+n); ok {
		return w.buildUniform(ctx, l, first, n)
	}
	old, err := w.lower(ctx, old, n)
	if err != nil {
		return sub{}, err
	}
	if old != nil && old.n == n && !w.touched(first, first+n) {
		return w.sized(ctx, *old)
	}
	if n == 1 {
		return w.buildLeaf(ctx, first)
	}
	return w.buildNode(ctx, first, n, old)
}

// lower descends to the first tree of old that is no higher than one of n chunks.
func (w *fileWriter) lower(ctx context.Context, old *sub, n int64) (*sub, error) {
	for old != nil && height(old.n) > height(n) {
		children, err := loadChildren(ctx, w.store, *old)
		if err != nil {
			return nil, err
		}
		old = &children[0]
	}
	return old, nil
}

// sized returns t with its tsize, which the root of an old file lacks.
func (w *fileWriter) sized(ctx context.Context, t sub) (sub, error) {
	if t.tsize >= 0 || t.size == w.size {
		return t, nil // known, or the whole file, whose tsize nobody asks for
	}
	plain, children, err := loadNode(ctx, w.store, t)
	if err != nil {
		return sub{}, err
	}
	t.tsize = int64(len(plain))
	for i := range children {
		t.tsize += children[i].tsize
	}
	return t, nil
}

func (w *fileWriter) buildLeaf(ctx context.Context, index int64) (sub, error) {
	l, err := w.leaf(ctx, index)
	if err != nil {
		return sub{}, fmt.Errorf("chunk %d: %w", index, err)
	}
	if l.Codec != link.Raw {
		return sub{}, fmt.Errorf("chunk %d: %v is no chunk", index, l)
	}
	return w.leafOf(l, index), nil
}

func (w *fileWriter) leafOf(l link.Link, index int64) sub {
	size := bytesOf(index, 1, w.size)
	return sub{link: l, n: 1, size: size, tsize: size}
}

// buildUniform makes a tree whose chunks are all the same.
func (w *fileWriter) buildUniform(ctx context.Context, leaf link.Link, first, n int64) (sub, error) {
	if n == 1 {
		return w.leafOf(leaf, first), nil
	}
	key := uniformKey{leaf, n}
	if t, ok := w.uniform[key]; ok {
		return t, nil
	}
	s := span(n)
	children := make([]sub, 0, pieces(n))
	for at := int64(0); at < n; at += s {
		c, err := w.buildUniform(ctx, leaf, first+at, min(s, n-at))
		if err != nil {
			return sub{}, err
		}
		children = append(children, c)
	}
	t, err := w.put(ctx, n, children)
	if err != nil {
		return sub{}, err
	}
	w.uniform[key] = t
	return t, nil
}

// buildNode makes the tree over n > 1 chunks from its pieces; old is no higher.
func (w *fileWriter) buildNode(ctx context.Context, first, n int64, old *sub) (sub, error) {
	was, err := w.piecesOf(ctx, old, n)
	if err != nil {
		return sub{}, err
	}
	s := span(n)
	children := make([]sub, 0, pieces(n))
	for i := int64(0); i < pieces(n); i++ {
		var from *sub
		if i < int64(len(was)) {
			from = &was[i]
		}
		c, err := w.build(ctx, first+i*s, min(s, n-i*s), from)
		if err != nil {
			return sub{}, err
		}
		children = append(children, c)
	}
	if old != nil && old.n == n && slices.Equal(children, was) {
		return w.sized(ctx, *old) // the same chunks again
	}
	return w.put(ctx, n, children)
}

// piecesOf cuts old into the pieces that a tree over n chunks has.
func (w *fileWriter) piecesOf(ctx context.Context, old *sub, n int64) ([]sub, error) {
	switch {
	case old == nil:
		return nil, nil
	case height(old.n) < height(n):
		return []sub{*old}, nil
	}
	return loadChildren(ctx, w.store, *old)
}

// put writes the node above children.
func (w *fileWriter) put(ctx context.Context, n int64, children []sub) (sub, error) {
	node, size := fileNode(children)
	plain := node.encode()
	l, err := w.store.Put(ctx, link.DagPB, plain, linksOf(children))
	if err != nil {
		return sub{}, fmt.Errorf("put file node: %w", err)
	}
	return sub{link: l, n: n, size: size, tsize: int64(node.tsizes()) + int64(len(plain))}, nil
}

// linksOf lists the links of children, each once.
func linksOf(children []sub) []link.Link {
	var refs refSet
	for i := range children {
		refs.add(children[i].link)
	}
	return refs.links
}

// loadChildren reads the node of t and returns its children.
func loadChildren(ctx context.Context, g Getter, t sub) ([]sub, error) {
	_, children, err := loadNode(ctx, g, t)
	return children, err
}

func loadNode(ctx context.Context, g Getter, t sub) ([]byte, []sub, error) {
	plain, err := g.Get(ctx, t.link)
	if err != nil {
		return nil, nil, fmt.Errorf("get file node: %w", err)
	}
	children, err := childrenOf(t, plain)
	if err != nil {
		return nil, nil, fmt.Errorf("%v: %w", t.link, err)
	}
	return plain, children, nil
}

// Chunks calls fn with the link of each chunk of f from from up to, but not
// including, to, in order. It reads only the nodes above that range, and a node
// that repeats, as in a large hole, once for the row of its repetitions. It ends
// with the first error, of fn too.
func Chunks(ctx context.Context, g Getter, f File, from, to int64, fn func(index int64, l link.Link) error) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("read file: %w: %w", ErrCorrupt, err)
	}
	if from < 0 || to < from || to > f.Chunks() {
		return fmt.Errorf("read file: chunks %d to %d of %d", from, to, f.Chunks())
	}
	if from == to {
		return nil
	}
	w := &fileWalker{g: g, from: from, to: to, fn: fn}
	return w.walk(ctx, 0, f.tree())
}

// fileWalker is one call of Chunks.
type fileWalker struct {
	g        Getter
	from, to int64
	fn       func(int64, link.Link) error
	last     [8]nodeMemo // by height
}

// nodeMemo is the node that was read last at some height.
type nodeMemo struct {
	tree     sub
	children []sub
}

// walk visits t, whose first chunk is number first, where it meets the range.
func (w *fileWalker) walk(ctx context.Context, first int64, t sub) error {
	if first >= w.to || first+t.n <= w.from {
		return nil
	}
	if t.n == 1 {
		return w.fn(first, t.link)
	}
	children, err := w.children(ctx, t)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	for i := range children {
		if err := w.walk(ctx, first, children[i]); err != nil {
			return err
		}
		first += children[i].n
	}
	return nil
}

func (w *fileWalker) children(ctx context.Context, t sub) ([]sub, error) {
	m := &w.last[height(t.n)]
	if m.tree == t {
		return m.children, nil
	}
	children, err := loadChildren(ctx, w.g, t)
	if err == nil {
		*m = nodeMemo{t, children}
	}
	return children, err
}
