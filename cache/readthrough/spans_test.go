package readthrough_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Chunks that lie side by side come by one request for some of them, and who reads the
// file in order gets the right ones, whatever is read of it beside him.
func TestNeighbouringChunksShareARequest(t *testing.T) {
	d := newDevice(t, newSwarm())
	const chunks = 40
	f, content := d.file(1, chunks)
	synctest.Test(t, func(t *testing.T) {
		for i := range int64(chunks) {
			err := d.reader.LendChunk(t.Context(), f, i, func(b []byte) {
				if !bytes.Equal(b, chunkOf(content, i)) {
					t.Errorf("chunk %d came as something else", i)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until what is fetched ahead is here
		}
	})
	requests := d.swarm.requests()
	units := 0
	for _, r := range requests {
		var number, unit, n int
		_, _ = fmt.Sscanf(r, "%d:%d+%d", &number, &unit, &n)
		units += n
	}
	if len(requests) > chunks/4+6 {
		t.Errorf("%d chunks took %d requests: %v", chunks, len(requests), requests)
	}
	if most := (chunks + 2) * dag.ChunkSize / erasure.Unit; units > most {
		t.Errorf("%d units for %d chunks, of %d at most: some came twice", units, chunks, most)
	}
}

// picky refuses, or spoils, ranges of more than a chunk.
type picky struct {
	*packs
	err error // nil: the bytes are others
}

func (p picky) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	if n <= dag.ChunkSize+erasure.Unit {
		return p.packs.ReadKnown(ctx, ref, off, n, room, fits)
	}
	if p.err != nil {
		return nil, false, p.err
	}
	b := bytes.Repeat([]byte{1}, n)
	if fits(b) {
		return nil, true, errors.New("others fit, too")
	}
	return b, false, nil
}

// Where chunks cannot be had together, or are others then, each is fetched alone.
func TestChunksThatDoNotComeTogetherComeAlone(t *testing.T) {
	for _, err := range []error{nil, errors.New("no")} {
		swarm := newSwarm()
		d := newDeviceOn(t, swarm, picky{swarm, err})
		f, content := d.file(1, 12)
		for i := range int64(12) {
			b, err := d.reader.ReadChunk(t.Context(), f, i)
			if err != nil || !bytes.Equal(b, chunkOf(content, i)) {
				t.Errorf("chunk %d: %d bytes, %v", i, len(b), err)
			}
		}
	}
}

// What is kept of a span stays as it was when the memory of others is used again.
func TestKeptChunksOfSpans(t *testing.T) {
	d := newDevice(t, newSwarm())
	f, content := d.file(1, 32)
	kept := map[int64][]byte{}
	for i := range int64(32) {
		if slices.Contains([]int64{3, 9, 10, 20}, i) {
			kept[i], _ = d.reader.ReadChunk(t.Context(), f, i)
			continue
		}
		err := d.reader.LendChunk(t.Context(), f, i, func(b []byte) {
			if !bytes.Equal(b, chunkOf(content, i)) {
				t.Errorf("chunk %d was lent as something else", i)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
	for i, b := range kept {
		if !bytes.Equal(b, chunkOf(content, i)) {
			t.Errorf("chunk %d did not stay as it was", i)
		}
	}
}
