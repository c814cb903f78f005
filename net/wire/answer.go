package wire

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
)

// Status says how an exchange ended; it is the tag of an answer.
type Status uint8

// The statuses. All but Done carry a reason in words.
const (
	Done      Status = 0
	Absent    Status = 1 // the holder does not have what was asked for
	Refused   Status = 2 // it will not do that, now or later
	Full      Status = 3 // it has no room
	Busy      Status = 4 // it has too much to do: ask again later
	Malformed Status = 5 // it could not read the request
	Crowded   Status = 6 // it takes no more groups, though it may have room for shards of those it has
)

var statusNames = [...]string{"done", "absent", "refused", "full", "busy", "malformed", "crowded"}

// String is the status in one word.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// MaxReason is how long the reason of a refusal can be, in bytes.
const MaxReason = 256

// MaxManifests is the largest body of an answer to manifests, in bytes.
const MaxManifests = group.MaxPacks*(group.MaxManifest+8) + 8

// A Refusal is an answer that is not Done.
type Refusal struct {
	Status Status
	Reason string
}

// Error gives status and reason.
func (r *Refusal) Error() string {
	if r.Reason == "" {
		return r.Status.String()
	}
	return r.Status.String() + ": " + r.Reason
}

// reason is the header of an answer that is not Done.
type reason struct {
	_      struct{} `cbor:",toarray"`
	Reason string
}

// Hello is a holder's account of itself, the header of the answer to a hello.
// Nobody signs it: region and domain are claims.
type Hello struct {
	_       struct{} `cbor:",toarray"`
	Version string   // of the program
	Offered int64    // bytes that it gives to others
	Free    int64    // of these, not yet taken
	Region  string   // country, subdivision, zone: "DE", "DE-BE", "DE-BE/1"
	Domain  string   // what fails together, in the holder's own words
	Time    int64    // Unix seconds, by its clock
}

// Longest texts of a Hello, in bytes.
const (
	MaxVersion = 64
	MaxRegion  = 64
	MaxDomain  = 128
)

func (h *Hello) valid() bool {
	return len(h.Version) <= MaxVersion && len(h.Region) <= MaxRegion && len(h.Domain) <= MaxDomain &&
		h.Offered >= 0 && h.Free >= 0 && h.Free <= h.Offered
}

// Encode returns the header of the answer.
func (h *Hello) Encode() []byte { return record.Encode(h) }

// ParseHello decodes what Encode gave.
func ParseHello(b []byte) (Hello, error) {
	var h Hello
	if err := record.Decode(b, maxHello, &h); err != nil {
		return Hello{}, fmt.Errorf("%w: hello: %w", ErrMalformed, err)
	}
	if !h.valid() {
		return Hello{}, fmt.Errorf("%w: hello out of range", ErrMalformed)
	}
	h.Version, h.Region, h.Domain = printable(h.Version), printable(h.Region), printable(h.Domain)
	return h, nil
}

// printable is a text of another peer as it may be shown: without what would
// steer a terminal or break a line of a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

const maxHello = MaxVersion + MaxRegion + MaxDomain + 64

// answerLimits has the limits of a Done answer to each kind of request.
var answerLimits = map[Kind]limit{
	KindHello:     {header: maxHello},
	KindAdmit:     {header: group.MaxStatement},
	KindPut:       {},
	KindGet:       {body: MaxShard + 64*(MaxShard>>14)},
	KindManifests: {body: MaxManifests},
	KindStatement: {header: group.MaxStatement},
	KindProve:     {body: maxProof},
	KindPutRecord: {},
	KindGetRecord: {header: group.MaxSlotRecord},
	KindLease:     {header: group.MaxLease},
	KindRelease:   {header: group.MaxStatement},
}

// maxProof bounds the most leaves of the largest shard with their paths.
var maxProof = erasure.SamplesSize(MaxShard, erasure.MaxSamples)

// AppendAnswer appends a Done answer with a body of this length, which the
// caller sends after it.
func AppendAnswer(b, header []byte, body int) []byte {
	return appendFrame(b, byte(Done), header, body)
}

// AppendRefusal appends an answer that is not Done. A reason that is too long
// is cut.
func AppendRefusal(b []byte, r Refusal) []byte {
	text := strings.ToValidUTF8(r.Reason[:min(len(r.Reason), MaxReason)], "")
	return appendFrame(b, byte(r.Status), record.Encode(reason{Reason: text}), 0)
}

// ReadAnswer reads the answer to a request of this kind up to its body, and
// returns the header and the body's length. It returns a *Refusal when the
// answer is not Done, ErrMalformed, or the error of r.
func ReadAnswer(r io.Reader, k Kind) (header []byte, body int, err error) {
	tag, header, body, err := readFrame(r, func(tag byte) (limit, bool) {
		switch {
		case Status(tag) == Done:
			return answerLimits[k], true
		case Status(tag) <= Crowded:
			return limit{header: MaxReason + 16}, true
		}
		return limit{}, false
	})
	if err != nil {
		return nil, 0, noEOF(err)
	}
	if Status(tag) == Done {
		return header, body, nil
	}
	var why reason
	if err := record.Decode(header, len(header), &why); err != nil {
		return nil, 0, fmt.Errorf("%w: refusal: %w", ErrMalformed, err)
	}
	return nil, 0, &Refusal{Status: Status(tag), Reason: printable(why.Reason)}
}

// EncodeManifests returns the body of an answer to manifests.
func EncodeManifests(words [][]byte) []byte { return record.Encode(words) }

// ParseManifests decodes what EncodeManifests gave. The words are not checked.
func ParseManifests(b []byte) ([][]byte, error) {
	var words [][]byte
	if err := record.Decode(b, MaxManifests, &words); err != nil {
		return nil, fmt.Errorf("%w: manifests: %w", ErrMalformed, err)
	}
	if len(words) > group.MaxPacks {
		return nil, fmt.Errorf("%w: %d manifests", ErrMalformed, len(words))
	}
	return words, nil
}
