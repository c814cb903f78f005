package model

import (
	"bytes"
	"fmt"
)

// Beside does operations on a target and on a model of it: each result must be
// alike, and so must all that can be seen.
type Beside struct {
	Target
	Model     *Tree
	Generator *Generator

	last []Op
}

// remembered is how many operations an error tells.
const remembered = 12

// Steps does n operations, and compares all after every so many, and at the end.
func (b *Beside) Steps(n, every int) error {
	for i := range n {
		op := b.Generator.Next()
		if b.last = append(b.last, op); len(b.last) > remembered {
			b.last = b.last[1:]
		}
		want, got := b.Model.Do(op), b.Do(op)
		if got.Errno != want.Errno || !bytes.Equal(got.Data, want.Data) {
			return fmt.Errorf("%v: %v, want %v; last were %v", op, got, want, b.last)
		}
		if i%every != 0 {
			continue
		}
		if err := b.Compare(); err != nil {
			return err
		}
	}
	return b.Compare()
}

// Compare compares all that can be seen.
func (b *Beside) Compare() error {
	l, err := b.List()
	if err == nil {
		err = Differ(l, b.Model.Listing())
	}
	if err != nil {
		return fmt.Errorf("%w; last were %v", err, b.last)
	}
	return nil
}
