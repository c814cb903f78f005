package writeback

import (
	"sync"

	"golang.org/x/sys/unix"

	"skep/chunker/block"
)

// bufferPool keeps the memory of packs and shards for the next ones of a
// commit: fresh memory has to be found and cleared first, which takes a third of
// the time in large pages.
type bufferPool struct {
	mu   sync.Mutex // guards free
	free map[int][][]byte
}

// get returns a buffer of this size, with whatever was in it.
func (b *bufferPool) get(size int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.free[size]
	if len(list) == 0 {
		buf := make([]byte, size)
		_ = unix.Madvise(buf, unix.MADV_HUGEPAGE) // a hint
		return buf
	}
	b.free[size] = list[:len(list)-1]
	return list[len(list)-1]
}

// put takes back a buffer that get returned.
func (b *bufferPool) put(buf []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == nil {
		b.free = map[int][][]byte{}
	}
	if list := b.free[cap(buf)]; len(list) <= inFlight {
		b.free[cap(buf)] = append(list, buf[:cap(buf)])
	}
}

// drain gives the memory back.
func (b *bufferPool) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = nil
}

// plaintexts are buffers for the largest plaintext, with its headroom.
type plaintexts struct{ pool sync.Pool }

type plaintext [block.Headroom + block.MaxPlain]byte

var plainBuffers = plaintexts{sync.Pool{New: func() any { return new(plaintext) }}}

func (b *plaintexts) get() []byte    { return b.pool.Get().(*plaintext)[:] }
func (b *plaintexts) put(buf []byte) { b.pool.Put((*plaintext)(buf)) }
