package writeback

import (
	"context"

	"skep/chunker/link"
)

// recountStep is how many blocks are visited before changes get their turn.
const recountStep = 64

// recountSome learns the block index and goes on with the count of references,
// on a device that joined the drive or lost its index. It reports whether there
// is more to do.
func (e *Engine) recountSome(ctx context.Context) (more bool, err error) {
	if counted, err := e.table.Counted(); err != nil || counted {
		return false, err
	}
	if err := e.reader.LearnAll(ctx, e.learned); err != nil {
		return true, err
	}
	more, err = e.table.RecountStep(recountStep, func(l link.Link) ([]link.Link, error) { return e.children(ctx, l) })
	return more || err != nil, err
}

// Count goes on until all references are counted. It must not be called beside Run, which
// does so by itself.
func (e *Engine) Count(ctx context.Context) error {
	for more := true; more; {
		var err error
		if more, err = e.recountSome(ctx); err != nil {
			return err
		}
	}
	return nil
}

// notLearned notes why the index, or what is counted, could not be read.
func (e *Engine) notLearned(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.IndexUnread = ""
	if err != nil {
		e.progress.IndexUnread = err.Error()
	}
}

// learned notes how much of the block index is here.
func (e *Engine) learned(done, total int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.IndexDone, e.progress.IndexTotal = done, total
}
