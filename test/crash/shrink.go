package crash

import (
	"slices"

	"skep/test/model"
)

// fewest leaves out operations as long as what is left fails, until none can be left
// out by itself.
func fewest[T any](ops []T, fails func([]T) bool) []T {
	for again := true; again; {
		again = false
		for i := len(ops) - 1; i >= 0; i-- {
			if fewer := slices.Delete(slices.Clone(ops), i, i+1); fails(fewer) {
				ops, again = fewer, true
			}
		}
	}
	return ops
}

// Shrink makes a case simpler as long as it fails: operations are left out, and what is
// special about the drive.
func (c Nested) Shrink(fails func(Nested) bool) Nested {
	try := func(change func(*Nested)) bool {
		simpler := c
		if change(&simpler); !fails(simpler) {
			return false
		}
		c = simpler
		return true
	}
	for _, ops := range []func(*Nested) *[]model.Op{
		func(c *Nested) *[]model.Op { return &c.After },
		func(c *Nested) *[]model.Op { return &c.B },
		func(c *Nested) *[]model.Op { return &c.Before },
	} {
		fewest(*ops(&c), func(fewer []model.Op) bool { return try(func(c *Nested) { *ops(c) = fewer }) })
	}
	if c.Full {
		try(func(c *Nested) { c.Full = false })
	}
	if c.Passthrough {
		try(func(c *Nested) { c.Passthrough = false })
	}
	return c
}
