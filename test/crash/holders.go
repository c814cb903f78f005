package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	mu    sync.Mutex // guards files
	files map[link.Link][]byte
	dir   string // that keeps them, too; empty: none
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
	}
	return h, err
}

// save makes a directory hold just these.
func (h *holders) save(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	for n := range len(h.files) {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprint(n+1)), h.files[contentLink(n+1)], 0o600))
	}
	return err
}

func contentLink(n int) link.Link {
	return link.Link{Codec: link.DagPB, Hash: link.Hash{byte(n), byte(n >> 8), 1}}
}

// keep takes content.
func (h *holders) keep(b []byte) (link.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.files) + 1
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

// ReadChunk implements tree.Content.
func (h *holders) ReadChunk(_ context.Context, f dag.File, i int64) ([]byte, error) {
	h.mu.Lock()
	b, ok := h.files[f.Root]
	h.mu.Unlock()
	if !ok {
		return nil, tree.ErrLost
	}
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

// commit takes what changed.
func (h *holders) commit(t *tree.Tree) error {
	cut, err := t.Cut()
	if err != nil {
		return err
	}
	defer cut.Close()
	keep := map[tree.Mark]bool{}
	var done []tree.Settled
	err = cut.Marks(func(m tree.Mark) error {
		s, err := h.take(cut, m)
		if errors.Is(err, tree.ErrMoving) {
			keep[m], err = true, nil
		} else if s.Ino != 0 {
			done = append(done, s)
		}
		return err
	})
	if err == nil {
		err = cut.Settle(ctx, done)
	}
	if err == nil {
		err = cut.ClearMarks(keep)
	}
	return err
}

// take keeps the content of the file under a mark, if it is a dirty one.
func (h *holders) take(cut *tree.Cut, m tree.Mark) (tree.Settled, error) {
	ino, ok, err := marked(cut, m)
	if !ok || err != nil {
		return tree.Settled{}, err
	}
	in, ok, err := cut.Inode(ino)
	if !ok || err != nil || !in.Dirty || in.Multi != (m.Dir == tree.Links) {
		return tree.Settled{}, err
	}
	f, err := cut.OpenFile(ctx, in)
	if err != nil {
		return tree.Settled{}, err
	}
	defer f.Close()
	b := make([]byte, f.Size)
	if err := f.ReadAt(ctx, b, 0); err != nil {
		return tree.Settled{}, err
	}
	if err := f.Taken(); err != nil {
		return tree.Settled{}, err
	}
	s := tree.Settled{Ino: ino, Size: f.Size}
	if f.Size > dag.MaxInline {
		s.Content, err = h.keep(b)
	}
	return s, err
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
