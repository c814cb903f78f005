package readthrough

import (
	"cmp"
	"context"
	"fmt"

	"skep/cache/blocks"
	"skep/cache/readerr"
	"skep/chunker/blockindex"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
)

// Held returns nil if each of the chunks [from, to) of a committed file lies in
// a pack that safe finds no fault with; else what safe said of one. It reads no
// content.
func (r *Reader) Held(ctx context.Context, f dag.File, from, to int64, safe func(group.Group, blocks.Pack) error) error {
	type pack struct {
		id     group.ID
		number uint16
	}
	judged := map[pack]error{}
	judge := func(p blockindex.Place) error {
		at := pack{p.Group, p.Number}
		err, done := judged[at]
		if !done {
			err = r.judge(p, safe)
			judged[at] = err
		}
		return err
	}
	return dag.Chunks(ctx, r, f, from, to, func(i int64, l link.Link) error {
		places, err := r.Places(ctx, l)
		if err != nil {
			return err
		}
		for _, p := range places {
			if err = judge(p); err == nil {
				return nil
			}
		}
		return fmt.Errorf("chunk %d: %w", i, err)
	})
}

func (r *Reader) judge(p blockindex.Place, safe func(group.Group, blocks.Pack) error) error {
	g, ok, err := r.table.Group(p.Group)
	if err != nil {
		return err
	}
	pk, there, err := r.table.Pack(p.Group, p.Number)
	if err != nil {
		return err
	}
	if !ok || !there {
		return fmt.Errorf("pack %d of group %v: %w", p.Number, p.Group, readerr.ErrAbsent)
	}
	if dying, err := r.isDying(pk); err != nil || dying {
		return cmp.Or(err, errDying)
	}
	return safe(g, pk)
}

var errDying = fmt.Errorf("it was moved, and that pack is given up: %w", readerr.ErrAbsent)

// isDying reports whether nothing that is needed has its home in a pack.
func (r *Reader) isDying(p blocks.Pack) (bool, error) {
	if p.Live > 0 {
		return false, nil
	}
	return r.table.Counted()
}
