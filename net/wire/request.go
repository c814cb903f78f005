package wire

import (
	"fmt"
	"io"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
)

// Protocol is the name under which streams of this protocol are opened.
const Protocol = "/skep/shard/1"

// Kind is the kind of a message, the tag of a request.
type Kind uint8

// The kinds of messages.
const (
	KindHello     Kind = 1
	KindAdmit     Kind = 2
	KindPut       Kind = 3
	KindGet       Kind = 4
	KindManifests Kind = 5
	KindStatement Kind = 6
	KindProve     Kind = 7
	KindPutRecord Kind = 8
	KindGetRecord Kind = 9
	KindLease     Kind = 10
	KindRelease   Kind = 11
)

var kindNames = [...]string{"", "hello", "admit", "put", "get", "manifests", "statement", "prove", "put record", "get record", "lease", "release"}

// String is the kind's name, as errors and metrics show it.
func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// SmallShard is the largest shard, in bytes, that gets the last part of an offer.
const SmallShard = 1 << 20

// MaxShard is the largest shard, in bytes: a pack of the largest class with
// k = 1.
const MaxShard = 1 << erasure.MaxClass

// requestLimits has the limits of each kind. CBOR adds some bytes to a word.
var requestLimits = map[Kind]limit{
	KindHello:     {header: 16},
	KindAdmit:     {header: group.MaxLease + 64},
	KindPut:       {header: group.MaxManifest + 64, body: MaxShard},
	KindGet:       {header: 128},
	KindManifests: {header: 128},
	KindStatement: {header: 64},
	KindProve:     {header: 128},
	KindPutRecord: {header: group.MaxSlotRecord + 64},
	KindGetRecord: {header: 64},
	KindLease:     {header: 64},
	KindRelease:   {header: group.MaxRelease + 64},
}

func requestLimit(tag byte) (limit, bool) {
	l, ok := requestLimits[Kind(tag)]
	return l, ok
}

// A Request is one of the messages below.
type Request interface {
	// Kind is the message's kind.
	Kind() Kind
	// valid reports whether the message says what can be.
	valid() bool
}

// HelloRequest asks who the holder is and what room it has.
type HelloRequest struct {
	_ struct{} `cbor:",toarray"`
}

// AdmitRequest asks for a slot of the group of a lease, or brings a newer
// lease of a group that the holder is in. The answer's header is the holder's
// signed statement.
type AdmitRequest struct {
	_     struct{} `cbor:",toarray"`
	Lease []byte   // signed group.Lease
	Slot  uint8
}

// PutRequest brings one shard; its bytes are the body. The answer comes when
// the shard is durable on the holder's disk.
type PutRequest struct {
	_        struct{} `cbor:",toarray"`
	Manifest []byte   // signed group.Manifest
	Slot     uint8
}

// GetRequest asks for a range of a shard. Offset is a multiple of erasure.Unit
// and the range's end is one too, or the shard's end. The answer's body is the
// Bao slice of the range or, of a bare get, its bytes alone.
type GetRequest struct {
	_      struct{} `cbor:",toarray"`
	Group  group.ID
	Number uint16
	Slot   uint8
	Offset uint32
	Length uint32
	Bare   bool
}

// ManifestsRequest asks for the signed manifests of these packs of a group. The
// answer's body is the CBOR array of those that the holder has.
type ManifestsRequest struct {
	_      struct{} `cbor:",toarray"`
	Group  group.ID
	Wanted group.Bitmap
}

// StatementRequest asks for the holder's signed statement on a group, which is
// the answer's header.
type StatementRequest struct {
	_     struct{} `cbor:",toarray"`
	Group group.ID
}

// LeaseRequest asks for the newest signed lease that the holder has seen of a
// group, which is the answer's header.
type LeaseRequest struct {
	_     struct{} `cbor:",toarray"`
	Group group.ID
}

// ReleaseRequest brings a holder the word of a group's owner that it has no slot
// of the group any more, and has it delete its shards. The answer's header is the
// holder's signed statement.
type ReleaseRequest struct {
	_       struct{} `cbor:",toarray"`
	Release []byte   // signed group.Release
}

// ProveRequest asks for an audit of one shard. The answer's body is the slices
// of the sampled leaves, as erasure.WriteSamples writes them.
type ProveRequest struct {
	_      struct{} `cbor:",toarray"`
	Group  group.ID
	Number uint16
	Slot   uint8
	Nonce  erasure.Nonce
	Count  uint8
}

// PutRecordRequest brings a slot record to be kept.
type PutRecordRequest struct {
	_      struct{} `cbor:",toarray"`
	Record []byte   // signed group.SlotRecord
}

// GetRecordRequest asks for the newest record that the holder keeps under a
// slot key, which is the answer's header.
type GetRecordRequest struct {
	_   struct{} `cbor:",toarray"`
	Key group.SlotKey
}

// Kind implements Request.
func (*HelloRequest) Kind() Kind { return KindHello }

// Kind implements Request.
func (*AdmitRequest) Kind() Kind { return KindAdmit }

// Kind implements Request.
func (*PutRequest) Kind() Kind { return KindPut }

// Kind implements Request.
func (*GetRequest) Kind() Kind { return KindGet }

// Kind implements Request.
func (*ManifestsRequest) Kind() Kind { return KindManifests }

// Kind implements Request.
func (*StatementRequest) Kind() Kind { return KindStatement }

// Kind implements Request.
func (*LeaseRequest) Kind() Kind { return KindLease }

// Kind implements Request.
func (*ReleaseRequest) Kind() Kind { return KindRelease }

// Kind implements Request.
func (*ProveRequest) Kind() Kind { return KindProve }

// Kind implements Request.
func (*PutRecordRequest) Kind() Kind { return KindPutRecord }

// Kind implements Request.
func (*GetRecordRequest) Kind() Kind { return KindGetRecord }

func (*HelloRequest) valid() bool { return true }

func (m *AdmitRequest) valid() bool {
	return m.Slot < erasure.MaxShards && len(m.Lease) <= group.MaxLease
}

func (m *PutRequest) valid() bool {
	return m.Slot < erasure.MaxShards && len(m.Manifest) <= group.MaxManifest
}

func (m *GetRequest) valid() bool {
	end := uint64(m.Offset) + uint64(m.Length)
	return m.Number < group.MaxPacks && m.Slot < erasure.MaxShards && m.Length > 0 && end <= MaxShard && m.Offset%erasure.Unit == 0
}

func (m *ManifestsRequest) valid() bool { return true }

func (m *StatementRequest) valid() bool { return true }

func (m *LeaseRequest) valid() bool { return true }

func (m *ReleaseRequest) valid() bool { return len(m.Release) <= group.MaxRelease }

func (m *ProveRequest) valid() bool {
	return m.Number < group.MaxPacks && m.Slot < erasure.MaxShards && m.Count > 0 && m.Count <= erasure.MaxSamples
}

func (m *PutRecordRequest) valid() bool { return len(m.Record) <= group.MaxSlotRecord }

func (m *GetRecordRequest) valid() bool { return true }

// Aligned reports whether a range may be asked of a shard of this size: it
// begins at a multiple of erasure.Unit and ends at one or at the shard's end.
func Aligned(shardSize, offset, length int) bool {
	end := offset + length
	return offset >= 0 && length > 0 && end <= shardSize && offset%erasure.Unit == 0 && (end%erasure.Unit == 0 || end == shardSize)
}

// Align widens a range of a shard to one that may be asked for.
func Align(shardSize, offset, length int) (from, to int) {
	from = offset / erasure.Unit * erasure.Unit
	to = min(shardSize, (offset+length+erasure.Unit-1)/erasure.Unit*erasure.Unit)
	return from, to
}

func empty(k Kind) Request {
	switch k {
	case KindHello:
		return new(HelloRequest)
	case KindAdmit:
		return new(AdmitRequest)
	case KindPut:
		return new(PutRequest)
	case KindGet:
		return new(GetRequest)
	case KindManifests:
		return new(ManifestsRequest)
	case KindStatement:
		return new(StatementRequest)
	case KindProve:
		return new(ProveRequest)
	case KindPutRecord:
		return new(PutRecordRequest)
	case KindGetRecord:
		return new(GetRecordRequest)
	case KindLease:
		return new(LeaseRequest)
	case KindRelease:
		return new(ReleaseRequest)
	}
	panic("BUG: wire: " + k.String())
}

// AppendRequest appends a request with a body of this length, which the caller
// sends after it.
func AppendRequest(b []byte, m Request, body int) []byte {
	return appendFrame(b, byte(m.Kind()), record.Encode(m), body)
}

// ReadRequest reads a request up to its body. What it returns is well formed
// and within the limits. It returns ErrMalformed, or the error of r: io.EOF
// when the stream ended before a first byte.
func ReadRequest(r io.Reader) (m Request, body int, err error) {
	tag, header, body, err := readFrame(r, requestLimit)
	if err != nil {
		return nil, 0, err
	}
	m = empty(Kind(tag))
	if err := record.Decode(header, len(header), m); err != nil {
		return nil, 0, fmt.Errorf("%w: %v: %w", ErrMalformed, m.Kind(), err)
	}
	if !m.valid() {
		return nil, 0, fmt.Errorf("%w: %v out of range", ErrMalformed, m.Kind())
	}
	return m, body, nil
}
