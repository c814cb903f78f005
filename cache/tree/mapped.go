package tree

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A mapping outlives the descriptor that it was made with. Of a file that the kernel
// reads and writes alone it holds the backing file, and nothing of ours: the file is
// released with the last close(2), and the program goes on storing; it does so even
// when the mount is taken away by force, or this process ends. So of the handles by
// which a file can have been mapped one is held, as if nobody had released it, until
// nobody else has the backing file. Nobody tells when that is: it is looked for.

// firstLook is how long after the last release it is looked whether a mapping is left
// that was there at once; then twice as long each time, up to lastLook. The kernel
// itself needs a moment to let go of a file.
const (
	firstLook = time.Millisecond
	lastLook  = time.Second
)

// Shared reports whether somebody else has the backing file open or mapped. An error
// says that nobody can tell.
func (f *File) Shared() (bool, error) {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return f.in.shared()
}

// shared is File.Shared; in.mu is held.
func (in *inode) shared() (bool, error) {
	if in.file == nil {
		return false, nil
	}
	return in.file.Shared()
}

// mayStore reports whether the handle can be mapped to store by.
func (f *File) mayStore() bool { return f.readable && f.writable }

// Storable reports whether somebody may store by a mapping into what Seek calls a hole.
// A mapping of a file that is not passed through keeps its handle open, and what it
// stores is not known here before the kernel writes it. Where not all of the file is
// here, Seek knows of no holes.
func (f *File) Storable() bool {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	return f.in.storers > 0 && f.in.row.knowsHoles()
}

// Abandon is Release for a handle that no program has closed, as the mount was taken away
// by force. Of a file that is passed through the program goes on writing by it, too.
func (f *File) Abandon() {
	f.in.mu.Lock()
	f.abandoned = true
	f.in.mu.Unlock()
	f.Release()
}

// Release ends the handle; if the file may be mapped by it, not before that has ended.
func (f *File) Release() {
	for _, ends := range f.t.ending(f) {
		ends.release()
	}
}

// ending takes the place of the handle that is held, if one that nobody uses any more
// can have been mapped in more ways, or is used still. It returns those that end.
func (t *Tree) ending(f *File) (ends []*File) {
	in := f.in
	in.mu.Lock()
	defer in.mu.Unlock()
	had := in.held
	switch {
	case !in.passthrough || !f.readable && !f.abandoned:
		return []*File{f}
	case had == nil || f.writable && !had.writable:
		in.held = f
	default:
		had = f
	}
	if had != nil {
		ends = append(ends, had)
	}
	if alone := in.opens-len(ends) == 1; alone && !in.isMapped() {
		ends, in.held = append(ends, in.held), nil
	} else if had == nil {
		t.watch(in)
	}
	return ends
}

// isMapped reports whether somebody else has the backing file, as far as can be told;
// in.mu is held.
func (in *inode) isMapped() bool {
	shared, err := in.shared()
	return shared && err == nil
}

// watch looks from time to time whether the mappings of an inode are gone, as long as a
// handle is held for them; in.mu is held.
func (t *Tree) watch(in *inode) {
	in.hold()
	t.background.Go(func() {
		defer t.release(in)
		for d := firstLook; ; d = min(2*d, lastLook) {
			select {
			case <-time.After(d):
			case <-t.ctx.Done():
				return
			}
			if held, over := in.unmapped(); over {
				if held != nil {
					held.release()
				}
				return
			}
		}
	})
}

// unmapped takes the handle that is held, if no mapping is left and nobody has the file
// open. It reports whether none is held any more.
func (in *inode) unmapped() (held *File, over bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.held != nil && (in.opens > 1 || in.isMapped()) {
		return nil, false
	}
	held, in.held = in.held, nil
	return held, true
}

// holdMapped holds those files that programs still have from a run that did not end in
// order: what they store is in the file, and nobody hears of it. It fails if too many
// files are open to tell: a commit would take for clean what they go on storing to.
func (t *Tree) holdMapped(inos []Ino) error {
	for _, ino := range inos {
		in, err := t.acquire(t.ctx, ino)
		if err == nil {
			err = t.holdIfMapped(in)
			t.release(in)
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return fmt.Errorf("who still has a file of the mount before is not known: %w", err)
		}
		if err != nil && !isStale(err) {
			t.log.Warn("who still has a file of the mount before is not known", "path", t.Path(ino), "err", err)
		}
	}
	return nil
}

func (t *Tree) holdIfMapped(in *inode) error {
	in.mu.Lock()
	if in.row.has(flagBacking) && !in.row.has(flagPartial) {
		if err := t.openBacking(in); err != nil {
			in.mu.Unlock()
			return err
		}
		in.passthrough = in.isMapped()
		t.closeBacking(in)
	}
	mapped := in.passthrough
	in.mu.Unlock()
	if !mapped {
		return nil
	}
	t.log.Warn("a program still has a file of the mount before", "path", t.Path(in.ino))
	f, err := t.openLocked(in, os.O_RDWR)
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil {
		in.passthrough = false
		return err
	}
	in.hold() // for the handle
	in.held = f
	t.watch(in)
	return nil
}
