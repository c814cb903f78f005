package hosted

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
)

const (
	shardMagic = "skep/sh1"
	headFixed  = len(shardMagic) + 4
	page       = 4096 // the shard's bytes begin at a multiple of it
	maxHead    = group.MaxManifest + 64
)

// head is what a shard's file holds before the shard.
type head struct {
	_        struct{} `cbor:",toarray"`
	Slot     uint8
	Manifest []byte // signed group.Manifest
	outboard []byte // follows the CBOR
}

// headSize is the length of an encoded head up to the shard's first byte, for
// CBOR of this length and a shard of this size.
func headSize(cbor, shardSize int) int {
	n := headFixed + cbor + erasure.OutboardSize(shardSize) + checksum
	return (n + page - 1) / page * page
}

// size is the length of the encoded head.
func (h *head) size(shardSize int) int { return headSize(len(record.Encode(h)), shardSize) }

// encode returns the head: magic, length of the CBOR, CBOR, outboard tree,
// BLAKE3 of all these, zeros up to a whole page.
func (h *head) encode() []byte {
	c := record.Encode(h)
	b := make([]byte, 0, headFixed+len(c)+len(h.outboard)+checksum+page)
	b = append(b, shardMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c)))
	b = append(b, c...)
	b = append(b, h.outboard...)
	sum := blake3.Sum256(b)
	b = append(b, sum[:]...)
	return append(b, make([]byte, (page-len(b)%page)%page)...)
}

// decodeHead reads a head whose shard has shardSize bytes. The result shares
// memory with b. The manifest's signature is not checked again.
func decodeHead(b []byte, shardSize int) (head, error) {
	var h head
	if len(b) < headFixed || string(b[:len(shardMagic)]) != shardMagic {
		return head{}, fmt.Errorf("%w: not the head of a shard", ErrDamaged)
	}
	n := int(binary.BigEndian.Uint32(b[len(shardMagic):]))
	if n > maxHead || headSize(n, shardSize) != len(b) {
		return head{}, fmt.Errorf("%w: head of %d bytes", ErrDamaged, len(b))
	}
	tree := headFixed + n
	end := tree + erasure.OutboardSize(shardSize)
	if sum := blake3.Sum256(b[:end]); !bytes.Equal(sum[:], b[end:end+checksum]) {
		return head{}, fmt.Errorf("%w: checksum of a head", ErrDamaged)
	}
	if len(bytes.Trim(b[end+checksum:], "\x00")) > 0 {
		return head{}, fmt.Errorf("%w: bytes behind a head", ErrDamaged)
	}
	if err := record.Decode(b[headFixed:tree], maxHead, &h); err != nil {
		return head{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	h.outboard = b[tree:end]
	return h, nil
}

// fileName is the name of a shard's file: pack number, slot, and length of the
// file, so that one that was cut short is found without reading it.
func fileName(number uint16, slot uint8, length int64) string {
	return fmt.Sprintf("%03d-%03d-%d", number, slot, length)
}

// parseFileName is the inverse of fileName.
func parseFileName(name string) (number uint16, slot uint8, length int64, ok bool) {
	n, err := fmt.Sscanf(name, "%03d-%03d-%d", &number, &slot, &length)
	ok = err == nil && n == 3 && number < group.MaxPacks && slot < erasure.MaxShards &&
		length > page && length <= maxFile && fileName(number, slot, length) == name
	return number, slot, length, ok
}

// maxFile bounds the length of a shard's file.
const maxFile = 1<<erasure.MaxClass + 1<<20

// peekManifest reads the manifest from the start of a head, whose checksum it
// cannot reach; the manifest's own signature vouches for it instead.
func peekManifest(b []byte) (word []byte, m group.Manifest, err error) {
	if len(b) < headFixed || string(b[:len(shardMagic)]) != shardMagic {
		return nil, group.Manifest{}, fmt.Errorf("%w: not the head of a shard", ErrDamaged)
	}
	n := int(binary.BigEndian.Uint32(b[len(shardMagic):]))
	if n > maxHead || n > len(b)-headFixed {
		return nil, group.Manifest{}, fmt.Errorf("%w: head of %d bytes", ErrDamaged, n)
	}
	var h head
	if err := record.Decode(b[headFixed:headFixed+n], maxHead, &h); err != nil {
		return nil, group.Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if m, err = group.ParseManifest(h.Manifest); err != nil {
		return nil, group.Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return h.Manifest, m, nil
}
