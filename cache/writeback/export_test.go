package writeback

// SetIndexShape makes pieces and lists of the block index small, so that a small
// drive has an index like that of a large one.
func (e *Engine) SetIndexShape(piece, named, list int) {
	e.shape = indexShape{piece: piece, named: named, list: list}
}
