package tree

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"skep/cache/state"
	"skep/chunker/dag"
)

// A backing file has no checksums. But one that changed while no tree was open, or
// does not reach as far as it is said to, is not what was left there: before
// anybody has it open, its clean chunks are compared with what the newest commit
// has, and those that differ are let go of, to be fetched. So damage is neither
// read nor, as the rest of a chunk that is written to, committed.

// absence is a time in which no tree was open, after one that was closed well, in
// nanoseconds since 1970.
type absence struct{ from, to uint64 }

// absencesMax is how many of them are remembered, the last ones.
const absencesMax = 16

var absencesRow = singleKey("absences")

// absences are in order.
type absences []absence

func (a absences) encode() []byte {
	var b []byte
	for _, one := range a {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, one.from), one.to)
	}
	return b
}

func decodeAbsences(b []byte) absences {
	var a absences
	for ; len(b) >= 16; b = b[16:] {
		a = append(a, absence{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
	}
	return a
}

// include reports whether a file changed within one of them. The kernel's times
// lag behind the clock: what a run changed as its last comes before its end.
func (a absences) include(ctime unix.Timespec) bool {
	at := uint64(ctime.Nano())
	return slices.ContainsFunc(a, func(one absence) bool { return one.from < at && at < one.to })
}

// readAbsences takes note of how long no tree was open, if the last one was closed
// well; ended is what it said.
func (t *Tree) readAbsences(ended []byte, b *state.Batch) error {
	v, _, err := t.st.Get(absencesRow)
	if err != nil {
		return err
	}
	t.away = decodeAbsences(v)
	if from := valueUint64(ended); from != 0 {
		t.away = append(t.away, absence{from, uint64(t.opt.Now().UnixNano())})
		t.away = t.away[max(0, len(t.away)-absencesMax):]
		b.Put(absencesRow, t.away.encode())
	}
	return nil
}

// settleDoubt compares a file with the newest commit if there is a reason. It asks
// nothing of a file that somebody has open.
func (t *Tree) settleDoubt(ctx context.Context, in *inode) error {
	if t.opt.Same == nil {
		return nil
	}
	doubtful, err := t.isDoubtful(in)
	if !doubtful || err != nil {
		return err
	}
	var damaged []int64
	err = t.CleanChunks(ctx, in.ino, 0, func(f dag.File, i int64, chunk []byte) error {
		same, err := t.opt.Same(ctx, f, i, chunk)
		if err == nil && !same {
			damaged = append(damaged, i)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: changed while it was not mounted, and cannot be checked: %w", t.Path(in.ino), err)
	}
	for _, i := range damaged {
		if err := t.DropChunk(ctx, in.ino, i); err != nil {
			return err
		}
	}
	if len(damaged) > 0 {
		t.tellDamaged(in.ino, fmt.Sprintf("pieces of 1 MiB of its content, %d, the first from byte %d on, differed here from what was committed, and were let go of: reading them fetches them",
			len(damaged), damaged[0]*dag.ChunkSize))
	}
	if len(damaged) > 0 {
		if err := t.st.Sync(); err != nil { // the reason for doubt goes
			return err
		}
	}
	return t.doubtSettled(in)
}

// tellDamaged tells what was let go of of a file.
func (t *Tree) tellDamaged(ino Ino, what string) {
	path := t.Path(ino)
	t.log.Warn("damaged on this device", "path", path, "what", what)
	if t.opt.Damaged != nil {
		t.opt.Damaged(path, what)
	}
}

// isDoubtful reports whether what is here of a closed file has to be compared.
func (t *Tree) isDoubtful(in *inode) (bool, error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.undoubted || in.opens > 0 || in.orphan || !in.row.has(flagBacking) || in.row.content.IsZero() {
		return false, nil
	}
	if err := t.readRanges(in); err != nil {
		return false, err
	}
	if err := t.openBacking(in); err != nil {
		return false, err
	}
	defer t.closeBacking(in)
	st, err := in.file.Stat()
	if err != nil {
		return false, err
	}
	here, end := in.here(), int64(0)
	if list := here.List(); len(list) > 0 {
		end = list[len(list)-1].To
	}
	in.undoubted = st.Size >= end && !t.away.include(st.Ctim)
	return !in.undoubted, nil
}

// doubtSettled gives a backing file the length that it should have, and a later
// change time, so that the next run has no doubt.
func (t *Tree) doubtSettled(in *inode) error {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.undoubted = true
	if in.opens > 0 || in.orphan || !in.row.has(flagBacking) {
		return nil
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	defer t.closeBacking(in)
	return in.file.Unseen(func() error {
		st, err := in.file.Stat()
		if err != nil || st.Size >= in.row.size {
			return err
		}
		return in.file.Truncate(in.row.size)
	})
}
