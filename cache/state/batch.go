package state

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFormat says that bytes are not a batch.
var ErrFormat = errors.New("malformed batch")

// The operations of a batch, and the first byte of an overlay's value.
const (
	opPut    = 1
	opDelete = 2
	opPatch  = 3

	deleted = 0
	present = 1
)

// MaxPatched is the largest value that Patch may make.
const MaxPatched = 1 << 20

// Batch is a list of changes that happen together. The zero Batch is empty and
// ready for use; it must not be used by several goroutines at once.
type Batch struct {
	buf     []byte
	n       int
	freeing bool
}

// After puts the changes of first before those of b.
func (b *Batch) After(first *Batch) {
	if first.n > 0 {
		b.buf, b.n = append(first.buf[:len(first.buf):len(first.buf)], b.buf...), first.n+b.n
	}
}

// Len is the number of changes.
func (b *Batch) Len() int { return b.n }

// Size is the length of the batch's encoding, in bytes.
func (b *Batch) Size() int { return len(b.buf) }

// Cap is the memory that the batch keeps, in bytes.
func (b *Batch) Cap() int { return cap(b.buf) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { *b = Batch{buf: b.buf[:0]} }

// Freeing marks the batch as one that frees space: it may use the journal's
// reserve when the disk is full.
func (b *Batch) Freeing() { b.freeing = true }

// Put sets the value of key.
func (b *Batch) Put(key, value []byte) {
	b.start(opPut, key)
	b.bytes(value)
}

// Delete removes key.
func (b *Batch) Delete(key []byte) { b.start(opDelete, key) }

// Patch overwrites part of key's value at offset. A shorter value is first
// extended with zeros; a missing one counts as empty.
func (b *Batch) Patch(key []byte, offset int, part []byte) {
	b.start(opPatch, key)
	b.buf = binary.AppendUvarint(b.buf, uint64(offset))
	b.bytes(part)
}

func (b *Batch) start(op byte, key []byte) {
	b.buf = append(b.buf, op)
	b.bytes(key)
	b.n++
}

func (b *Batch) bytes(p []byte) {
	b.buf = binary.AppendUvarint(b.buf, uint64(len(p)))
	b.buf = append(b.buf, p...)
}

// Decode reads an encoded batch; it keeps a view of p.
func Decode(p []byte) (*Batch, error) {
	b := &Batch{buf: p}
	err := b.each(func(byte, []byte, int, []byte) error { b.n++; return nil })
	return b, err
}

// each calls fn for every change.
func (b *Batch) each(fn func(op byte, key []byte, offset int, value []byte) error) error {
	r := reader{b: b.buf}
	for len(r.b) > 0 {
		op := r.b[0]
		r.b = r.b[1:]
		key := r.bytes()
		var offset uint64
		var value []byte
		switch op {
		case opPut:
			value = r.bytes()
		case opDelete:
		case opPatch:
			offset = r.uvarint()
			value = r.bytes()
			if offset+uint64(len(value)) > MaxPatched {
				r.bad = true
			}
		default:
			r.bad = true
		}
		if r.bad || len(key) == 0 || key[0] == 0 {
			return ErrFormat
		}
		if err := fn(op, key, int(offset), value); err != nil {
			return err
		}
	}
	return nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// prepare reads the values that b's patches overwrite, in their order: all that can fail,
// before the batch is in the journal. s.applyMu is held, or nobody else is there.
func (s *Store) prepare(b *Batch) error {
	clear(s.olds)
	s.olds = s.olds[:0]
	s.mu.RLock()
	defer s.mu.RUnlock()
	return b.each(func(op byte, key []byte, _ int, _ []byte) error {
		if op != opPatch {
			return nil
		}
		old, _, err := s.get(key)
		if err != nil {
			return fmt.Errorf("patch: %w", err)
		}
		s.olds = append(s.olds, old)
		return nil
	})
}

// apply makes the changes of a prepared batch in the active overlay; s.mu is held, or
// nobody else is there.
func (s *Store) apply(b *Batch) {
	scratch, olds := s.scratch, s.olds
	defer func() { s.scratch = scratch[:0] }()
	_ = b.each(func(op byte, key []byte, offset int, value []byte) error { // it was prepared
		scratch = scratch[:0]
		switch op {
		case opPut:
			scratch = append(append(scratch, present), value...)
		case opDelete:
			scratch = append(scratch, deleted)
		case opPatch:
			old := olds[0]
			olds = olds[1:]
			if v, err := s.active.Get(key); err == nil { // the batch itself may have changed it
				old = v[1:]
			}
			scratch = append(append(scratch, present), old...)
			if need := 1 + offset + len(value); len(scratch) < need {
				scratch = append(scratch, make([]byte, need-len(scratch))...)
			}
			copy(scratch[1+offset:], value)
		}
		return s.active.Put(key, scratch)
	})
}
