package tree

import (
	"sync"

	"skep/cache/state"
)

// count is how many files and bytes the rows of the tables come to. It has a row
// of its own, which is written in the very batch that changes them, so that no
// crash makes it wrong. What memory alone knows of files that are being written
// it lacks: after a crash these are looked at anyhow.
type count struct {
	mu           sync.Mutex // held while a batch that changes them is applied
	files, bytes int64
}

func countRow(files, bytes int64) []byte {
	return append(uint64Value(uint64(files)), uint64Value(uint64(bytes))...)
}

var countKey = singleKey("count")

// read takes the count from the tables; without a row, it is that of the totals.
func (t *Tree) readCount() error {
	b, ok, err := t.st.Get(countKey)
	if err != nil {
		return err
	}
	if ok && len(b) == 16 {
		t.files64.Store(int64(valueUint64(b[:8])))
		t.bytes64.Store(int64(valueUint64(b[8:])))
	}
	t.count.files, t.count.bytes = t.files64.Load(), t.bytes64.Load()
	return nil
}

// apply applies a batch whose rows have so many files and bytes more than before.
func (n *count) apply(st *state.Store, b *state.Batch, files, bytes int64) (uint64, error) {
	if files == 0 && bytes == 0 {
		return st.Apply(b)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b.Put(countKey, countRow(n.files+files, n.bytes+bytes))
	seq, err := st.Apply(b)
	if err == nil {
		n.files, n.bytes = n.files+files, n.bytes+bytes
	}
	return seq, err
}
