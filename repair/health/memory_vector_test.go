package health

import (
	"testing"
	"time"

	"skep/test/vectors"
)

func TestMemoryVector(t *testing.T) {
	s, now := New(Config{}), time.UnixMilli(1_800_000_000_000)
	s.Lied(key(1), now)
	s.Lied(key(1), now.Add(time.Second))
	s.Lied(key(2), now)
	p := s.peers[key(2)]
	p.owed = append(p.owed, owed{shard: shard{testGroup, 1, 2}, vain: 3})
	vectors.Check(t, "memory", "what is known of two holders that lied, one of which owes a proof", s.Encode(now.Add(time.Minute)))
}
