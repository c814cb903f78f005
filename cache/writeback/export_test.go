package writeback

import (
	"context"

	"skep/cache/tree"
)

// SetIndexShape makes pieces and lists of the block index small, so that a small
// drive has an index like that of a large one.
func (e *Engine) SetIndexShape(piece, named, list int) {
	e.shape = indexShape{piece: piece, named: named, list: list}
}

// AtOnce tells of how many of some names of the root a commit gathers the changes at once.
func (e *Engine) AtOnce(ctx context.Context, cut *tree.Cut, names []string) (int, error) {
	_, n, err := newWork(ctx, e, cut).changes(ctx, tree.Root, names)
	return n, err
}
