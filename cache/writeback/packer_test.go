package writeback

import (
	"errors"
	"testing"

	"skep/chunker/block"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// What is larger than a pack of its kind is refused, not tried for ever.
func TestBlockLargerThanAPack(t *testing.T) {
	const class = 16
	p := newPacker(t.Context(), &Engine{cfg: Config{ContentClass: class}})
	err := p.add(block.Sealed{Link: link.Link{Codec: link.Raw}, Ciphertext: make([]byte, 1<<class)}, nil)
	if !errors.Is(err, pack.ErrFull) {
		t.Errorf("got %v", err)
	}
}
