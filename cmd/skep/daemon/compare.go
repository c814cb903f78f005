package daemon

import (
	"bytes"
	"context"

	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// isChunk reports whether plain is chunk i of a committed file.
func (d *drive) isChunk(ctx context.Context, f dag.File, i int64, plain []byte) (same bool, err error) {
	err = dag.Chunks(ctx, d.reader, f, i, i+1, func(_ int64, l link.Link) error {
		b, _, err := d.table.Get(l.Hash)
		if err == nil {
			same, err = d.isBlock(ctx, l, b.Tag, plain)
		}
		return err
	})
	return same, err
}

// isBlock reports whether plain is the content of a block: by its tag, or, if that
// is not known here, by what holders have.
func (d *drive) isBlock(ctx context.Context, l link.Link, tag block.Tag, plain []byte) (bool, error) {
	if tag != (block.Tag{}) {
		return block.NewSealer(d.epoch.Convergence).Tag(link.Raw, plain) == tag, nil
	}
	want, err := d.reader.Get(ctx, l)
	return bytes.Equal(want, plain), err
}
