package tree

import (
	"sync"

	"skep/cache/state"
)

// tally is what the content of rows comes to, in bytes.
type tally struct {
	bytes int64 // of it all: see taken
	here  int64 // of these, that are on this device
}

func (r *row) tally() tally { return tally{r.taken(), r.here()} }

func (a tally) plus(b tally) tally  { return tally{a.bytes + b.bytes, a.here + b.here} }
func (a tally) minus(b tally) tally { return tally{a.bytes - b.bytes, a.here - b.here} }

// count is how many files and bytes the rows of the tables come to. It has a row
// of its own, which is written in the very batch that changes them, so that no
// crash makes it wrong. What memory alone knows of files that are being written
// it lacks: after a crash these are looked at anyhow.
type count struct {
	mu      sync.Mutex // held while a batch that changes them is applied
	files   int64
	content tally
}

func countRow(files int64, content tally) []byte {
	return numbersRow(files, content.bytes, content.here)
}

var countKey = singleKey("count")

// readCount takes the count from the tables.
func (t *Tree) readCount() error {
	n := &t.count
	if err := t.readNumbers(countKey, &n.files, &n.content.bytes, &n.content.here); err != nil {
		return err
	}
	t.files64.Store(n.files)
	t.bytes64.Store(n.content.bytes)
	t.here64.Store(n.content.here)
	return nil
}

// apply applies a batch whose rows have so many files, and so much content, more
// than before.
func (n *count) apply(st *state.Store, b *state.Batch, files int64, content tally) (uint64, error) {
	if files == 0 && content == (tally{}) {
		return st.Apply(b)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	files, content = n.files+files, n.content.plus(content)
	b.Put(countKey, countRow(files, content))
	seq, err := st.Apply(b)
	if err == nil {
		n.files, n.content = files, content
	}
	return seq, err
}

// numbersRow is a row of a few numbers, of which none is below 0.
func numbersRow(numbers ...int64) []byte {
	var b []byte
	for _, n := range numbers {
		b = append(b, uint64Value(uint64(max(0, n)))...)
	}
	return b
}

// readNumbers reads a row of a few numbers, which stay as they are if there is none.
func (t *Tree) readNumbers(key []byte, numbers ...*int64) error {
	b, ok, err := t.st.Get(key)
	if err != nil || !ok || len(b) != 8*len(numbers) {
		return err
	}
	for i, n := range numbers {
		*n = int64(valueUint64(b[8*i : 8*i+8]))
	}
	return nil
}
