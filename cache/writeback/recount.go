package writeback

import (
	"context"

	"skep/cache/state"
	"skep/chunker/link"
)

// recountStep is how many blocks are visited before changes get their turn.
const recountStep = 64

// recountSome goes on with the count of references, if one is under way, and
// reports whether there is more to do at once.
func (e *Engine) recountSome(ctx context.Context) (more bool) {
	ready, err := e.RefsReady()
	if err != nil || ready {
		return false
	}
	if err = e.reader.LearnAll(ctx, nil); err == nil {
		more, err = e.table.RecountStep(recountStep, func(l link.Link) ([]link.Link, error) { return e.children(ctx, l) })
	}
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Log.Info("counting references is put off", "err", err)
		}
		return false
	}
	if more {
		return true
	}
	var b state.Batch
	SetRefsReady(&b)
	if _, err := e.cfg.State.Apply(&b); err != nil {
		e.cfg.Log.Warn("counting references", "err", err)
	}
	return false
}
