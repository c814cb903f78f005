package writeback_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
	"skep/test/memswarm"
	"skep/test/seed"
)

// sniffer looks into every pack on its way to holders, with the drive's secrets.
type sniffer struct {
	*memswarm.Swarm
	t *testing.T

	mu     sync.Mutex               // guards all below
	packs  map[[16]byte]link.Hash   // by the id, from which keys of a pack are derived: all of its bytes
	sealed map[secret.Key]link.Hash // what a key sealed
	blocks map[link.Hash]link.Link  // by plaintext and codec: the block
	twice  int                      // how often equal plaintexts were sealed again
}

func (s *sniffer) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	s.look(g, bytes.Join(shards[:g.Coding.K], nil)[:g.Class.Size()])
	return s.Swarm.Store(ctx, g, lease, manifest, shards)
}

func (s *sniffer) look(g group.Group, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, whole := [16]byte(b[:16]), block.HashOf(b)
	if old, ok := s.packs[id]; ok && old != whole {
		s.t.Error("two packs have one id, so their indexes are sealed with one key")
	}
	s.packs[id] = whole
	entries, err := pack.ReadIndex(read, g.Class, func(off, n int) ([]byte, error) { return bytes.Clone(b[off : off+n]), nil })
	if err != nil {
		s.t.Error(err)
	}
	for _, e := range entries {
		ciphertext := b[e.Offset : e.Offset+e.Length]
		if old, ok := s.sealed[e.Link.Key]; ok && old != block.HashOf(ciphertext) {
			s.t.Errorf("the key of block %v sealed two messages", e.Link)
		}
		s.sealed[e.Link.Key] = block.HashOf(ciphertext)
		plain, err := block.Open(e.Link, ciphertext, nil)
		if err != nil {
			s.t.Error(err)
		}
		of := block.HashOf(fmt.Appendf(plain, "%d", e.Link.Codec))
		if old, ok := s.blocks[of]; ok {
			s.twice++
			if old != e.Link {
				s.t.Errorf("equal plaintexts were sealed to blocks %v and %v", old, e.Link)
			}
		}
		s.blocks[of] = e.Link
	}
}

// In the life of a drive, with commits that fail and are made again, a restart, a
// lost index and packs that are folded, no key ever seals two messages, and equal
// chunks seal to equal blocks.
func TestNoKeySealsTwoMessagesInADrive(t *testing.T) {
	r := rand.New(rand.NewPCG(seed.For(t), 1))
	swarm := memswarm.New(9, 4, 7)
	s := &sniffer{Swarm: swarm, t: t, packs: map[[16]byte]link.Hash{}, sealed: map[secret.Key]link.Hash{}, blocks: map[link.Hash]link.Link{}}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: s, publish: swarm.Publish}
	d.open(newDrive)
	t.Cleanup(d.close)
	failed := 0
	for round := range 24 {
		for range 1 + r.IntN(6) {
			name := fmt.Sprintf("d%d/f%d", r.IntN(3), r.IntN(12))
			content := random(uint64(r.IntN(5)), 1+r.IntN(3<<20)) // often the beginning of another one
			if r.IntN(3) == 0 {
				content = bytes.Repeat(content[:min(len(content), 700)], 1+r.IntN(4000)) // that can be compressed
			}
			switch dir, base := d.parent(name); r.IntN(4) {
			case 0:
				_ = d.tree.Unlink(ctx, dir, base) // if it is there
			default:
				d.put(name, content)
			}
		}
		if r.IntN(4) == 0 { // too few holders, in the middle of a commit or at once
			down := func(is bool) {
				for i := range 5 {
					swarm.Set(i, func(h *memswarm.Holder) { h.Down = is })
				}
			}
			down(true)
			if d.engine.Sync(ctx) != nil { // unless there was nothing to store
				failed++
			}
			down(false)
		}
		d.sync()
		if round == 10 || round == 20 {
			if round == 20 {
				d.loseIndex()
			} else {
				d.close()
			}
			d.open(nil)
		}
	}
	if len(s.packs) < 20 || len(s.sealed) < 100 || s.twice == 0 || failed == 0 {
		t.Errorf("only %d packs with %d blocks were seen, %d of them again, and %d commits failed", len(s.packs), len(s.sealed), s.twice, failed)
	}
	t.Logf("%d packs with %d blocks, %d sealed again; %d commits failed", len(s.packs), len(s.sealed), s.twice, failed)
}
