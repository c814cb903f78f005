package tree

import (
	"sync"

	"skep/cache/state"
)

// tally is what the content of rows comes to, in bytes.
type tally struct {
	bytes int64 // of it all: see taken
	here  int64 // of these, that are on this device
	holes int64 // that bytes lacks of the sizes
}

func (r *row) tally() tally { return tally{r.taken(), r.here(), r.holes()} }

func (a tally) plus(b tally) tally {
	return tally{a.bytes + b.bytes, a.here + b.here, a.holes + b.holes}
}

func (a tally) minus(b tally) tally { return a.plus(tally{-b.bytes, -b.here, -b.holes}) }

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
	return numbersRow(files, content.bytes, content.here, content.holes)
}

var countKey = singleKey("count")

// readCount takes the count from the tables.
func (t *Tree) readCount() error {
	n := &t.count
	var err error
	if n.files, n.content, _, err = countIn(t.st); err != nil {
		return err
	}
	t.files64.Store(n.files)
	t.bytes64.Store(n.content.bytes)
	t.here64.Store(n.content.here)
	return nil
}

// countIn is the count in some tables, and whether they have one.
func countIn(r state.Reader) (files int64, content tally, there bool, err error) {
	there, err = readNumbers(r, countKey, &files, &content.bytes, &content.here, &content.holes)
	return files, content, there, err
}

// Usage is how many files the tree had at the cut, and how many bytes they come to by
// their sizes: who begins with the commit knows of no holes, and counts with these until it
// has seen a file.
func (c *Cut) Usage() (files, size int64, err error) {
	files, content, _, err := countIn(c.view)
	return files, content.bytes + content.holes, err
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

// readNumbers reads a row of a few numbers, and reports whether there is one. Those that it
// lacks stay as they are.
func readNumbers(r state.Reader, key []byte, numbers ...*int64) (there bool, err error) {
	b, there, err := r.Get(key)
	for _, n := range numbers {
		if len(b) >= 8 {
			*n, b = int64(valueUint64(b[:8])), b[8:]
		}
	}
	return there, err
}
