package crash

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/link"
	"skep/test/model"
)

// holders keep the contents of commits: all that is gone here comes back from
// them.
type holders struct {
	mu    sync.Mutex // guards all but dir
	files map[link.Link][]byte
	last  int    // number of the newest
	dir   string // that keeps them, too; empty: none

	published [][]byte // the contents of all commits that did not fail

	at   func(step string) // see watch
	took func(taken)       // if it is set, is called with what a commit takes
}

// taken is the content of a file that a commit takes.
type taken struct {
	ino     tree.Ino
	name    string // of the file, at the cut
	content []byte
	moved   bool // it was written meanwhile, by the kernel alone
}

func newHolders() *holders { return &holders{files: map[link.Link][]byte{}} }

// openHolders returns those that keep contents in a directory.
func openHolders(dir string) (*holders, error) {
	h := newHolders()
	h.dir = dir
	names, err := os.ReadDir(dir)
	for _, name := range names {
		var n int
		if _, err := fmt.Sscanf(name.Name(), "%d", &n); err != nil {
			continue // it was not whole
		}
		if h.files[contentLink(n)], err = os.ReadFile(filepath.Join(dir, name.Name())); err != nil {
			return nil, err
		}
		h.last = max(h.last, n)
	}
	return h, err
}

// save makes a directory hold just these.
func (h *holders) save(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	for n := 1; n <= h.last; n++ {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), h.files[contentLink(n)], 0o600))
	}
	return err
}

func contentLink(n int) link.Link {
	l := link.Link{Codec: link.DagPB, Hash: link.Hash{4: 1}}
	binary.LittleEndian.PutUint32(l.Hash[:], uint32(n))
	return l
}

// forget lets go of what was published before, and of what neither a file of a listing nor an open one can need. Who
// goes back to an earlier state of the disk must not.
func (h *holders) forget(d *model.Drive, l model.Listing) error {
	needed := map[link.Link]bool{}
	for _, root := range d.Tree.Needs() {
		needed[root] = true
	}
	for _, e := range l {
		if !e.IsFile() {
			continue
		}
		s, err := d.Tree.ContentState(ctx, tree.Ino(e.File))
		if err != nil {
			return err
		}
		needed[s.Content] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published = nil
	maps.DeleteFunc(h.files, func(root link.Link, _ []byte) bool { return !needed[root] })
	return nil
}

// keep takes content.
func (h *holders) keep(b []byte) (link.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	n := h.last
	l := contentLink(n)
	h.files[l] = b
	if h.dir == "" {
		return l, nil
	}
	tmp := filepath.Join(h.dir, "new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return l, err
	}
	return l, os.Rename(tmp, filepath.Join(h.dir, fmt.Sprint(n)))
}

func (h *holders) Dir(context.Context, link.Link, func(string, dag.Inode) error) error {
	return errors.New("no directory was let go of")
}

func (h *holders) Linked(context.Context, uint64) (dag.Inode, error) {
	return dag.Inode{}, errors.New("no record was let go of")
}

// clone returns holders that have the same, and go their own way.
func (h *holders) clone() *holders {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &holders{files: maps.Clone(h.files), last: h.last}
}

// watch has fn called at each step of a commit, and of a fetch; nil ends it.
func (h *holders) watch(fn func(step string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = fn
}

func (h *holders) step(name string) {
	h.mu.Lock()
	at := h.at
	h.mu.Unlock()
	if at != nil {
		at(name)
	}
}

func (h *holders) get(root link.Link) ([]byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.files[root]
	return b, ok
}

// ReadChunk implements tree.Content.
func (h *holders) ReadChunk(_ context.Context, f dag.File, i int64) ([]byte, error) {
	h.step("fetch")
	b, ok := h.get(f.Root)
	if !ok {
		return nil, tree.ErrLost
	}
	defer h.step("fetched")
	return bytes.Clone(b[i*dag.ChunkSize : min(int64(len(b)), (i+1)*dag.ChunkSize)]), nil
}

// LendChunk implements tree.Content.
func (h *holders) LendChunk(ctx context.Context, f dag.File, i int64, use func([]byte)) error {
	b, err := h.ReadChunk(ctx, f, i)
	if err == nil {
		use(b)
	}
	return err
}

// errFails is what keeps a commit from being published that is to fail.
var errFails = errors.New("the commit was to fail")

// commit takes what changed, and publishes it unless it is to fail. Files that the
// kernel writes alone are taken as whole ones, or else in the ways up to last.
func (h *holders) commit(t *tree.Tree, fails bool, last tree.Reading) error {
	cut, err := t.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	h.step("cut")
	keep := map[tree.Mark]bool{}
	var done []tree.Settled
	err = cut.Marks(func(m tree.Mark) error {
		s, err := h.takeAny(cut, m, last)
		if errors.Is(err, tree.ErrMoving) || errors.Is(err, tree.ErrGone) {
			keep[m], err = true, nil
		} else if s.Ino != 0 {
			done = append(done, s)
		}
		return err
	})
	h.step("stored")
	if err == nil && fails {
		return errFails
	}
	if err == nil {
		h.publish(done)
		err = cut.Settle(ctx, done)
	}
	h.step("settled")
	if err == nil {
		err = cut.ClearMarks(keep)
	}
	h.step("cleared")
	return err
}

func (h *holders) publish(done []tree.Settled) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range done {
		if b, ok := h.files[s.Content]; ok {
			h.published = append(h.published, b)
		}
	}
}

// takeAny is take by the first reading up to last that counts.
func (h *holders) takeAny(cut *tree.Cut, m tree.Mark, last tree.Reading) (s tree.Settled, err error) {
	for how := tree.Whole; how <= last; how++ {
		if s, err = h.take(cut, m, how); !errors.Is(err, tree.ErrMoving) {
			break
		}
	}
	return s, err
}

// take keeps the content of the file under a mark, if it is a dirty one.
func (h *holders) take(cut *tree.Cut, m tree.Mark, how tree.Reading) (tree.Settled, error) {
	ino, ok, err := marked(cut, m)
	if !ok || err != nil {
		return tree.Settled{}, err
	}
	in, ok, err := cut.Inode(ino)
	if !ok || err != nil || !in.Dirty || in.Multi != (m.Dir == tree.Links) {
		return tree.Settled{}, err
	}
	f, err := cut.OpenFile(ctx, in, how)
	if err != nil {
		return tree.Settled{}, err
	}
	defer f.Close()
	h.step("opened")
	b, err := h.content(f)
	if err != nil {
		return tree.Settled{}, err
	}
	h.step("read")
	if err := f.Taken(); err != nil {
		return tree.Settled{}, err
	}
	if h.took != nil {
		h.took(taken{ino, m.Name, b, f.Moved})
	}
	h.step("taken")
	s := tree.Settled{Ino: ino, Size: f.Size}
	if !f.IsTiny() {
		s.Content, err = h.keep(b)
	}
	return s, err
}

// content is what a file holds: what the last commit has, but where it changed.
func (h *holders) content(f *tree.CutFile) ([]byte, error) {
	b := make([]byte, f.Size)
	old, _ := h.get(f.Old.Root)
	copy(b, old)
	for _, r := range f.Changed() {
		for at := r.From; at < r.To; {
			from, _ := f.NextData(at)
			if hole := min(from, r.To) / dag.ChunkSize * dag.ChunkSize; hole > at {
				clear(b[at:hole])
				at = hole
				continue
			}
			end := min((at/dag.ChunkSize+1)*dag.ChunkSize, r.To)
			if err := f.ReadAt(ctx, b[at:end], at); err != nil {
				return nil, err
			}
			at = end
		}
	}
	return b, nil
}

func marked(cut *tree.Cut, m tree.Mark) (ino tree.Ino, ok bool, err error) {
	switch m.Dir {
	case 0:
		return 0, false, nil
	case tree.Links:
		_, err = fmt.Sscanf(m.Name, "%016x", (*uint64)(&ino))
		return ino, true, err
	}
	return cut.Entry(m.Dir, m.Name)
}

// check says whether what is called clean is what the holders have.
func (h *holders) check(d *model.Drive, l model.Listing) error {
	for path, e := range l {
		if !e.IsFile() {
			continue
		}
		s, err := d.Tree.ContentState(ctx, tree.Ino(e.File))
		if err != nil {
			return err
		}
		if s.Dirty || s.Content.IsZero() {
			continue
		}
		if err := model.DifferBytes(e.Content, h.files[s.Content]); err != nil {
			return fmt.Errorf("%q counts as clean: %w", path, err)
		}
	}
	return nil
}
