package tree

import (
	"fmt"

	"golang.org/x/sys/unix"

	"skep/cache/state"
	"skep/chunker/dag"
)

// notePassed marks a file that the kernel writes alone, if it changed since the
// last commit that took it.
func (c *Cut) notePassed(in *inode, b *state.Batch) {
	if !in.passthrough || in.writers == 0 || in.orphan || in.file == nil {
		return
	}
	st, err := in.file.Stat()
	if err != nil {
		return
	}
	in.noteBacking(st, c.t)
	if in.taken != nil && sameContent(st, *in.taken) {
		return
	}
	c.passed[in.ino] = true
	in.row.flags |= flagDirty
	in.row.dirtyEpoch = c.epoch
	in.soft, in.whole, in.markedEpoch = true, true, c.epoch
	dir, name := in.row.parent, in.row.name
	if in.row.has(flagMulti) {
		dir, name = Links, linkName(in.ino)
	}
	b.Put(markKey(dir, name), uint64Value(c.epoch))
}

func sameContent(a, b unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// openPassed prepares to read a file that the kernel may be writing: what is
// read counts if nothing moved meanwhile. The flush write-protects mapped
// pages, so that a later store shows in the change time.
func (f *CutFile) openPassed() error {
	if f.in == nil {
		return ErrMoving
	}
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if f.in.orphan {
		return ErrMoving
	}
	if f.in.row.has(flagInline) {
		return f.takeClosed()
	}
	if !f.in.row.has(flagBacking) {
		return ErrMoving
	}
	file, err := f.c.t.files.Open(f.in.row.backing)
	if err != nil {
		return err
	}
	f.file = file
	if err := file.Sync(); err != nil {
		return fmt.Errorf("flush before reading: %w", err)
	}
	if f.before, err = file.Stat(); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	f.in.noteBacking(f.before, f.c.t)
	r := &f.in.row
	f.Size, f.whole, f.passed, f.partial = f.before.Size, true, true, r.has(flagPartial)
	f.valid = f.in.valid.Clone()
	f.takeAttributes(r)
	return nil
}

// takeClosed takes the content of a small file that was closed since the cut:
// it is at rest, and inline; in.mu is held.
func (f *CutFile) takeClosed() error {
	r := &f.in.row
	b, err := f.c.t.inlineContent(f.in)
	if err != nil {
		return err
	}
	f.Size, f.whole, f.partial = r.size, true, false
	f.inline = append(append([]byte(nil), b...), make([]byte, max(0, r.size-int64(len(b))))...)
	f.takeAttributes(r)
	return nil
}

// takeAttributes makes the record that of the inode as it is now.
func (f *CutFile) takeAttributes(r *row) {
	f.Record.Size, f.Record.Mode, f.Record.UID, f.Record.GID = r.size, r.mode, r.uid, r.gid
	f.Record.Mtime, f.Record.Ctime = dag.Time(r.mtime), dag.Time(r.ctime)
}
