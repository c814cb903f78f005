package liar

import (
	"bytes"
	"crypto/ed25519"

	"skep/cache/hosted"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/net/wire"
)

// lie tells an answer otherwise.
type lie func(s *self, request, answer []byte) told

// told is what is sent.
type told struct {
	bytes       []byte
	thenSilence bool
}

// self is what a liar knows of itself.
type self struct {
	key   ed25519.PrivateKey
	store *hosted.Store
}

// lies are the ways to lie.
var lies = map[string]lie{
	"flip":  flip,
	"forge": forge,
	"claim": claim,
	"other": other,
	"stall": stall,
	"flood": flood,
}

// ofShards reports whether a request asks for bytes of a shard.
func ofShards(request []byte) bool {
	k := kind(request)
	return k == wire.KindGet || k == wire.KindProve
}

func kind(request []byte) wire.Kind {
	if len(request) == 0 {
		return 0
	}
	return wire.Kind(request[0])
}

// flip turns one bit in the middle of what is sent of a shard.
func flip(_ *self, request, answer []byte) told {
	if ofShards(request) && len(answer) > 1000 {
		answer[len(answer)/2] ^= 4
	}
	return told{bytes: answer}
}

// forge sends ranges of another shard, with the proof that they are of it.
func forge(s *self, request, answer []byte) told {
	m, _, err := wire.ReadRequest(bytes.NewReader(request))
	get, ok := m.(*wire.GetRequest)
	if err != nil || !ok || len(answer) < 1000 {
		return flip(s, request, answer)
	}
	h, _ := s.store.Holding(get.Group)
	shard := bytes.Repeat([]byte("forged; "), h.ShardSize()/8)
	off, n := int(get.Offset), int(get.Length)
	if get.Bare {
		return told{bytes: append(wire.AppendAnswer(nil, nil, n), shard[off:off+n]...)}
	}
	outboard, _ := erasure.Outboard(shard)
	var slice bytes.Buffer
	if err := erasure.WriteSlice(&slice, bytes.NewReader(shard), outboard, off, n); err != nil {
		return told{bytes: answer}
	}
	return told{bytes: append(wire.AppendAnswer(nil, nil, slice.Len()), slice.Bytes()...)}
}

// claim states to hold every pack, and has none when it is asked for it.
func claim(s *self, request, answer []byte) told {
	m, _, err := wire.ReadRequest(bytes.NewReader(request))
	if ofShards(request) {
		return told{bytes: wire.AppendRefusal(nil, wire.Refusal{Status: wire.Absent})}
	}
	if ask, ok := m.(*wire.StatementRequest); err == nil && ok {
		if h, held := s.store.Holding(ask.Group); held {
			for n := range h.Lease.Packs {
				h.Held.Add(n)
			}
			st := group.Statement{Group: ask.Group, Slot: h.Slot, Held: h.Held, Lease: h.Lease.Number}
			return told{bytes: wire.AppendAnswer(nil, st.Sign(s.key), 0)}
		}
	}
	return told{bytes: answer}
}

// other answers with the statement of another holder.
func other(_ *self, request, answer []byte) told {
	m, _, err := wire.ReadRequest(bytes.NewReader(request))
	if ask, ok := m.(*wire.StatementRequest); err == nil && ok {
		return told{bytes: wire.AppendAnswer(nil, group.Statement{Group: ask.Group}.Sign(secret.New().Signer()), 0)}
	}
	return told{bytes: answer}
}

// stall sends half of what is asked for of a shard, and then nothing.
func stall(_ *self, request, answer []byte) told {
	if ofShards(request) {
		return told{bytes: answer[:len(answer)/2], thenSilence: true}
	}
	return told{bytes: answer}
}

// flood sends more than anybody asked for.
func flood(_ *self, request, answer []byte) told {
	if ofShards(request) {
		return told{bytes: append([]byte{byte(wire.Done), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 16<<20)...)}
	}
	return told{bytes: answer}
}
