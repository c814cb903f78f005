package tree

// removal is a backing file that may go once the batch seq is on the disk.
type removal struct {
	number, seq uint64
	unread      bool // no commit under way can want to read it
}

// dropContent lets go of the backing file of an inode that ended; in.mu is
// held.
func (t *Tree) dropContent(in *inode) {
	if in.file != nil && (in.frozen == nil || in.frozen.file != in.file) {
		_ = in.file.Close()
	}
	in.file = nil
	if in.row.has(flagBacking) {
		t.removeBacking(in.row.backing, in.seq)
		in.row.flags &^= flagBacking
	}
	in.inline = nil
	if in.left {
		in.left = false
		t.left.add(in.ino)
	}
	in.row.local = 0
	t.recharge(in)
}

// removeBacking deletes a backing file as soon as the batch seq is on the disk
// and no commit can want to read it: one that is under way knows what there was at
// its cut, and opens what the kernel was writing alone while it has a number.
func (t *Tree) removeBacking(number, seq uint64) {
	t.removeMu.Lock()
	t.removals = append(t.removals, removal{number: number, seq: seq})
	t.removeMu.Unlock()
}

// runRemovals deletes what may go by now.
func (t *Tree) runRemovals() {
	if err := t.removeLeft(); err != nil {
		t.log.Warn("content of removed files stays for now", "err", err)
	}
	cut := t.currentCut()
	t.removeMu.Lock()
	var keep, gone []removal
	for _, r := range t.removals {
		if t.st.Durable(r.seq) && (r.unread || cut == nil || r.number > cut.last) {
			gone = append(gone, r)
		} else {
			keep = append(keep, r)
		}
	}
	t.removals = keep
	t.removeMu.Unlock()
	for _, r := range gone {
		if err := t.files.Remove(r.number); err != nil {
			t.log.Warn("cannot delete a backing file", "err", err)
		}
	}
}
