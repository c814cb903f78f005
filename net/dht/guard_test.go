package dht

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/libp2p/go-libp2p/core/network"
	"pgregory.net/rapid"
)

// fakeStream is a stream of which only what is read matters.
type fakeStream struct {
	network.Stream
	r     io.Reader
	reset bool
}

func (s *fakeStream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *fakeStream) Reset() error {
	s.reset = true
	return nil
}

// Messages within the bound pass as they are, however they arrive.
func TestGuardPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []byte
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			m := make([]byte, rapid.SampledFrom([]int{0, 1, 127, 128, 300, 1000}).Draw(t, "length"))
			in = append(binary.AppendUvarint(in, uint64(len(m))), m...)
		}
		var r io.Reader = bytes.NewReader(in)
		if rapid.Bool().Draw(t, "one by one") {
			r = iotest.OneByteReader(r)
		}
		got, err := io.ReadAll(&guarded{Stream: &fakeStream{r: r}, max: 1000})
		if err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(in), err)
		}
	})
}

// A message beyond it ends the stream before anybody has seen its length.
func TestGuardEnds(t *testing.T) {
	for _, length := range []uint64{1001, 4096, 1 << 22, 1 << 31, 1 << 35, 1<<64 - 1} {
		s := &fakeStream{r: bytes.NewReader(append(binary.AppendUvarint([]byte{1, 7}, length), 1, 2, 3))}
		got, err := io.ReadAll(&guarded{Stream: s, max: 1000})
		if !errors.Is(err, errLong) || !s.reset {
			t.Errorf("length %d: %v, reset %v", length, err, s.reset)
		}
		if n, _ := binary.Uvarint(got[2:]); n > 1000 {
			t.Errorf("length %d was passed as %d", length, n)
		}
	}
}

func FuzzGuard(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 0, 1, 9})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, _ := io.ReadAll(&guarded{Stream: &fakeStream{r: bytes.NewReader(in)}, max: 1000})
		if !bytes.HasPrefix(in, got) {
			t.Fatal("other bytes")
		}
		for len(got) > 0 { // what is passed is messages within the bound
			n, used := binary.Uvarint(got)
			if used <= 0 {
				return // a length that was not passed to its end
			}
			if n > 1000 {
				t.Fatalf("a message of %d bytes", n)
			}
			got = got[min(len(got), used+int(n)):]
		}
	})
}
