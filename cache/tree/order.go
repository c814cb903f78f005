package tree

import (
	"context"
	"fmt"
	"time"

	"skep/cache/backing"
	"skep/cache/disk"
)

// A file that the kernel writes alone, and that does not come to rest, can still be
// taken as a power cut would leave it. Each byte that is read of it is as it was at
// some moment since the reading began. A power cut at the end of the reading could
// leave the same, unless something came after something else for sure: a program
// that asks for a flush counts on what it wrote before being on the disk when what
// it writes then gets there. So what is read is in order if nobody was told
// meanwhile that a flush is over; nor was the file cut short, as the disk forgets at
// once what had been behind the end.

// Reading is how a commit takes a file that the kernel writes alone.
type Reading int

const (
	// Whole takes it if it was not written meanwhile: it is as it was at one moment.
	Whole Reading = iota
	// Ordered takes it also while it is written, unless somebody asked for a flush
	// meanwhile: it is as a power cut would have left it.
	Ordered
	// Copied reads a copy. Flushes wait while that is made, so that it is in order.
	Copied
)

// flushDelay is how long a flush waits for a file to be copied at most. Then there
// is no copy.
const flushDelay = 5 * time.Second

// copyRest is for how long a file is not copied of which that took too long: each time
// it would delay a flush.
const copyRest = 10 * time.Minute

// delayFlushes has programs wait that ask for a flush, until resume is called.
func (in *inode) delayFlushes() (resume func()) {
	copied := make(chan struct{})
	in.mu.Lock()
	defer in.mu.Unlock()
	in.copying = copied
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.copying = nil
		close(copied)
	}
}

// ordered takes note that a program asks for a flush: what it writes from then on
// comes after all that it wrote before. in.mu is held, but for the wait.
func (t *Tree) ordered(ctx context.Context, in *inode) {
	if copied := in.copying; copied != nil {
		patience := time.NewTimer(flushDelay)
		defer patience.Stop()
		in.mu.Unlock()
		slow := false
		select {
		case <-copied:
		case <-patience.C:
			slow = true
		case <-ctx.Done():
		}
		in.mu.Lock()
		if slow {
			in.slowSince = t.opt.Now()
		}
	}
	in.order++
}

// isSlow reports whether copying a file delayed a flush for too long lately.
func (t *Tree) isSlow(in *inode) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.slowSince.IsZero() && t.opt.Now().Sub(in.slowSince) < copyRest
}

// isOrdered reports whether nothing happened since the file was opened by which what
// was read would be out of order.
func (f *CutFile) isOrdered() bool {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return f.how != Whole && f.in.order == f.order && !f.in.unheard
}

// lookBack finds out whether what was read until now of a file counts, that the kernel
// may have been writing, and whether it did.
func (f *CutFile) lookBack() (moved bool, err error) {
	if f.how == Copied {
		return true, nil // as far as is known
	}
	after, err := f.file.Stat()
	if err != nil {
		return false, fmt.Errorf("stat: %w", err)
	}
	moved = !sameContent(f.before, after) || !f.c.t.atRest(f.before)
	if moved && !f.isOrdered() {
		return true, ErrMoving
	}
	return moved, nil
}

// copyShare is which part of the room that is left on the disk a copy takes at most.
const copyShare = 2

// copyAside has the file be a copy of it, made while flushes wait.
func (f *CutFile) copyAside(ctx context.Context) error {
	t, size := f.c.t, f.before.Size
	if _, avail, err := t.files.Disk(); err != nil || f.before.Blocks*512 > avail/copyShare {
		return ErrMoving
	}
	to, err := t.files.Scratch()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMoving, err)
	}
	from := f.file
	defer from.Close()
	f.file = to
	for at := int64(0); at < size; at += preserveStep {
		if !f.isOrdered() {
			return ErrMoving
		}
		if err := copyData(to, from, backing.Range{From: at, To: min(size, at+preserveStep)}); err != nil {
			return fmt.Errorf("%w: %w", ErrMoving, err)
		}
		f.copied = t.countCopy(to, f.copied)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !f.isOrdered() {
		return ErrMoving
	}
	return nil
}

// countCopy has a copy that a commit reads count as content that is here, and returns for
// how many bytes; counted is for how many it did before. Who ends it takes them off again.
func (t *Tree) countCopy(of disk.File, counted int64) int64 {
	st, err := of.Stat()
	if err != nil {
		return counted
	}
	t.copies64.Add(st.Blocks*512 - counted)
	return st.Blocks * 512
}
