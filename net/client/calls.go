package client

import (
	"context"
	"fmt"
	"io"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/wire"
)

// Hello asks a peer who it is and what room it has. Nobody vouches for what it
// says.
func (c *Client) Hello(ctx context.Context, p group.PeerKey) (wire.Hello, error) {
	var hello wire.Hello
	err := c.call(ctx, p, &wire.HelloRequest{}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		hello, err = wire.ParseHello(header)
		return err
	})
	return hello, err
}

// Admit asks a peer to take a slot of the group of a signed lease, or brings
// it a newer lease of a group that it holds, and returns its statement. A peer
// that holds another slot of the group refuses.
func (c *Client) Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error) {
	l, err := group.ParseLease(lease)
	if err != nil {
		return group.Statement{}, fmt.Errorf("admit: %w", err)
	}
	var st group.Statement
	err = c.call(ctx, p, &wire.AdmitRequest{Lease: lease, Slot: slot}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		st, err = statementOf(header, p, l.Group)
		if err == nil && st.Slot != slot {
			err = errOther
		}
		return err
	})
	return st, err
}

// Put brings a peer one shard of a pack and returns nil when it is durable
// there. shard is not altered; it has to be the shard of the manifest.
func (c *Client) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	return c.call(ctx, p, &wire.PutRequest{Manifest: manifest, Slot: slot}, shard, nil)
}

// Get returns n bytes at off of the shard that a peer holds in a slot of a
// pack, checked against the pack's manifest. The range asked for is widened to
// multiples of erasure.Unit, so that the peer does not see where blocks begin.
// The caller owns the result.
func (c *Client) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	return c.get(ctx, p, m, slot, off, n, false, nil)
}

// GetBare returns what a peer says that these bytes are: nothing of it is
// checked. It costs both sides less than Get, and is for who can tell by other
// means whether they are right. If not, he asks again with Get, so that a liar is
// known for one.
//
// room, unless it is nil, gives memory for the range that is asked for, of so many
// bytes, in which the result lies; nil of it has that made. It is called when an answer
// comes. When GetBare has
// returned, nobody writes to it any more.
func (c *Client) GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, room func(n int) []byte) ([]byte, error) {
	return c.get(ctx, p, m, slot, off, n, true, room)
}

func (c *Client) get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, bare bool, room func(n int) []byte) ([]byte, error) {
	size := m.ShardSize()
	if int(slot) >= len(m.Roots) || off < 0 || n <= 0 || n > size-off {
		return nil, fmt.Errorf("get %d+%d of slot %d: outside the pack", off, n, slot)
	}
	from, to := wire.Align(size, off, n)
	whole := erasure.SliceSize(size, from, to-from)
	if bare {
		whole = to - from
	}
	var dst []byte // no memory for answers that do not come: very many may be waited for
	req := &wire.GetRequest{Group: m.Group, Number: m.Number, Slot: slot, Offset: uint32(from), Length: uint32(to - from), Bare: bare}
	err := c.call(ctx, p, req, nil, func(_ []byte, body io.Reader, length int) error {
		if length != whole {
			return fmt.Errorf("%w: %d bytes", erasure.ErrProof, length)
		}
		if dst == nil {
			dst = roomOr(room, to-from)
		}
		if bare {
			_, err := io.ReadFull(body, dst)
			return err
		}
		return erasure.ReadSlice(body, dst, size, from, m.Roots[slot])
	})
	if err != nil {
		return nil, err
	}
	return dst[off-from:][:n:n], nil
}

// roomOr is memory that room gives, or fresh memory.
func roomOr(room func(n int) []byte, n int) []byte {
	if room != nil {
		if b := room(n); b != nil {
			return b
		}
	}
	return make([]byte, n)
}

// Manifests returns the signed manifests, by pack number, of those wanted packs
// of a group that a peer holds shards of.
func (c *Client) Manifests(ctx context.Context, p group.PeerKey, id group.ID, wanted group.Bitmap) (map[uint16][]byte, error) {
	out := map[uint16][]byte{}
	err := c.call(ctx, p, &wire.ManifestsRequest{Group: id, Wanted: wanted}, nil, func(_ []byte, body io.Reader, n int) error {
		b, err := io.ReadAll(io.LimitReader(body, int64(n))) // memory for what came, not for what was announced
		if err == nil && len(b) < n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		words, err := wire.ParseManifests(b)
		if err != nil {
			return err
		}
		for _, w := range words {
			m, err := group.ParseManifest(w)
			if err != nil {
				return err
			}
			if m.Group != id || !wanted.Has(m.Number) {
				return errOther
			}
			out[m.Number] = w
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Statement returns a peer's signed statement on what it holds of a group.
func (c *Client) Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error) {
	var st group.Statement
	err := c.call(ctx, p, &wire.StatementRequest{Group: id}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		st, err = statementOf(header, p, id)
		return err
	})
	return st, err
}

func statementOf(word []byte, p group.PeerKey, id group.ID) (group.Statement, error) {
	st, err := group.ParseStatement(word)
	if err != nil {
		return group.Statement{}, err
	}
	if st.Holder != p || st.Group != id {
		return group.Statement{}, errOther
	}
	return st, nil
}

// Lease returns the newest lease of a group that a peer has seen, parsed and
// signed.
func (c *Client) Lease(ctx context.Context, p group.PeerKey, id group.ID) (l group.Lease, word []byte, err error) {
	err = c.call(ctx, p, &wire.LeaseRequest{Group: id}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		word = header
		if l, err = group.ParseLease(header); err == nil && l.Group != id {
			err = errOther
		}
		return err
	})
	if err != nil {
		return group.Lease{}, nil, err
	}
	return l, word, nil
}

// Release brings a peer a group's signed release for it, and returns its statement.
// It refuses if it was given a slot since.
func (c *Client) Release(ctx context.Context, p group.PeerKey, release []byte) (group.Statement, error) {
	r, err := group.ParseRelease(release)
	if err != nil {
		return group.Statement{}, fmt.Errorf("release: %w", err)
	}
	var st group.Statement
	err = c.call(ctx, p, &wire.ReleaseRequest{Release: release}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		st, err = statementOf(header, p, r.Group)
		return err
	})
	return st, err
}

// Prove audits the shard that a peer holds in a slot of a pack: it returns nil
// when the peer has shown count samples, at most erasure.MaxSamples, of the
// chain that the nonce begins. How long the answer may take is the context's.
func (c *Client) Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	size := m.ShardSize()
	if int(slot) >= len(m.Roots) || count < 1 || count > erasure.MaxSamples {
		return fmt.Errorf("prove %d samples of slot %d: outside the pack", count, slot)
	}
	req := &wire.ProveRequest{Group: m.Group, Number: m.Number, Slot: slot, Nonce: nonce, Count: uint8(count)}
	return c.call(ctx, p, req, nil, func(_ []byte, body io.Reader, n int) error {
		in := &io.LimitedReader{R: body, N: int64(n)}
		err := erasure.ReadSamples(in, nonce, size, m.Roots[slot], count)
		if err != nil && in.N == 0 {
			return fmt.Errorf("%w: short of samples", erasure.ErrProof)
		}
		return err
	})
}

// PutRecord brings a peer a signed slot record to keep. It refuses when it
// keeps one with a higher number.
func (c *Client) PutRecord(ctx context.Context, p group.PeerKey, record []byte) error {
	return c.call(ctx, p, &wire.PutRecordRequest{Record: record}, nil, ignore)
}

// GetRecord returns the slot record that a peer keeps under a key, parsed and
// signed.
func (c *Client) GetRecord(ctx context.Context, p group.PeerKey, key group.SlotKey) (r group.SlotRecord, word []byte, err error) {
	err = c.call(ctx, p, &wire.GetRecordRequest{Key: key}, nil, func(header []byte, _ io.Reader, _ int) (err error) {
		word = header
		if r, err = group.ParseSlotRecord(header); err == nil && r.Key() != key {
			err = errOther
		}
		return err
	})
	if err != nil {
		return group.SlotRecord{}, nil, err
	}
	return r, word, nil
}

func ignore([]byte, io.Reader, int) error { return nil }
