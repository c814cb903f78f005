package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrMalformed says that bytes are not a frame or message of the protocol.
var ErrMalformed = errors.New("malformed message")

// preamble is the length of what precedes every header: tag, header length,
// body length.
const preamble = 1 + 4 + 4

// appendFrame appends the frame without its body.
func appendFrame(b []byte, tag byte, header []byte, body int) []byte {
	b = append(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(len(header)))
	b = binary.BigEndian.AppendUint32(b, uint32(body))
	return append(b, header...)
}

// limit is how long a header and a body may be.
type limit struct{ header, body int }

// readFrame reads a frame up to its body. limitOf gives the limits for a tag,
// or false for a tag that does not exist.
func readFrame(r io.Reader, limitOf func(tag byte) (limit, bool)) (tag byte, header []byte, body int, err error) {
	var p [preamble]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return 0, nil, 0, err
	}
	lim, ok := limitOf(p[0])
	if !ok {
		return 0, nil, 0, fmt.Errorf("%w: unknown tag %d", ErrMalformed, p[0])
	}
	hn, bn := binary.BigEndian.Uint32(p[1:]), binary.BigEndian.Uint32(p[5:])
	if int64(hn) > int64(lim.header) || int64(bn) > int64(lim.body) {
		return 0, nil, 0, fmt.Errorf("%w: header of %d and body of %d bytes, at most %d and %d", ErrMalformed, hn, bn, lim.header, lim.body)
	}
	header = make([]byte, hn)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, nil, 0, noEOF(err)
	}
	return p[0], header, int(bn), nil
}

// noEOF makes the end of a stream inside a message an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
