package daemon

import (
	"errors"
	"testing"

	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
)

// Where no peer tells of room, groups of metadata are founded all the same, of small
// shards: the last part of what peers offer is for these. Groups of content are not.
func TestPlanInAFullSwarm(t *testing.T) {
	known := peers.New(peers.Options{})
	for i := range 8 {
		known.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30})
	}
	s := &sink{n: &network{self: group.PeerKey{99}, peers: known, swarm: swarm.New(swarm.Config{})}}
	coding, holders, err := s.Plan(t.Context(), 22, group.Metadata)
	if err != nil || len(holders) != int(coding.N) || coding.ShardSize(22) > wire.SmallShard {
		t.Errorf("%v, %d holders, %v", coding, len(holders), err)
	}
	if _, _, err := s.Plan(t.Context(), 22, group.Content); !errors.Is(err, writeback.ErrNoRoom) {
		t.Errorf("content: %v", err)
	}
	if _, _, err := s.Plan(t.Context(), 26, group.Metadata); !errors.Is(err, writeback.ErrNoRoom) {
		t.Errorf("large shards: %v", err)
	}
}
