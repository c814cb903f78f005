package writeback

import (
	"sync"

	"skep/chunker/erasure"
)

// bufferPool keeps the memory of packs for the next ones.
type bufferPool struct {
	mu   sync.Mutex // guards free
	free map[erasure.Class][][]byte
}

func (b *bufferPool) get(c erasure.Class) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.free[c]
	if len(list) == 0 {
		return nil
	}
	buf := list[len(list)-1]
	b.free[c] = list[:len(list)-1]
	return buf[:0]
}

func (b *bufferPool) put(c erasure.Class, buf []byte) {
	if cap(buf) < c.Size() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == nil {
		b.free = map[erasure.Class][][]byte{}
	}
	if len(b.free[c]) < inFlight+1 {
		b.free[c] = append(b.free[c], buf)
	}
}

// drain gives the memory back.
func (b *bufferPool) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = nil
}
