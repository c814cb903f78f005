package tree

import (
	"errors"
	"slices"
	"sync"

	"skep/cache/state"
)

// leftovers are inodes that ended while their content row stayed. Who removes the
// last name of a small file that nobody has open does not read its content, which
// somebody might still want, nor remove it: the row goes some time after the
// inode ended, many at once. Until then a row of tableLeft names it, so that no
// end of the process makes it stay for good.
type leftovers struct {
	mu   sync.Mutex // guards inos
	inos []Ino
}

func (l *leftovers) add(inos ...Ino) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inos = append(l.inos, inos...)
}

func (l *leftovers) takeAll() []Ino {
	l.mu.Lock()
	defer l.mu.Unlock()
	inos := l.inos
	l.inos = nil
	return inos
}

// leftStep is how many content rows are removed in one batch.
const leftStep = 256

// removeLeft removes the content rows of inodes that ended.
func (t *Tree) removeLeft() error {
	var errs error
	for some := range slices.Chunk(t.left.takeAll(), leftStep) {
		var b state.Batch
		b.Freeing()
		for _, ino := range some {
			b.Delete(key(tableInline, ino))
			b.Delete(key(tableLeft, ino))
		}
		if _, err := t.st.Apply(&b); err != nil {
			t.left.add(some...)
			errs = errors.Join(errs, noSpace(err))
		}
	}
	return errs
}

// findLeft finds the content rows that an earlier run left.
func (t *Tree) findLeft() error {
	var bad error
	err := t.st.Scan([]byte{tableLeft}, []byte{tableLeft + 1}, func(k, _ []byte) bool {
		var m Mark
		if m, bad = parseMark(k); bad == nil {
			t.left.add(m.Dir)
		}
		return bad == nil
	})
	return errors.Join(err, bad)
}

// takeLeft reads into memory the content of an inode without a name that somebody
// wants after all; in.mu is held.
func (t *Tree) takeLeft(in *inode) error {
	if !in.left {
		return nil
	}
	b, err := t.inlineContent(in)
	if err != nil {
		return err
	}
	in.inline, in.left = append([]byte(nil), b...), false
	t.left.add(in.ino)
	return nil
}
