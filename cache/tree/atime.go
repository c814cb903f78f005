package tree

import "errors"

// Access times stay on this device. They move as with relatime, in memory; the
// rows follow some at a time, every half a minute and at the end, so that reading
// writes nothing. After a crash the newest may be missing.

const (
	// atimesEvery is after how many ticks of Run the access times are written.
	atimesEvery = 60
	// atimesStep is how many rows are written under one lock.
	atimesStep = 256
)

// SetNoAtime says whether reading leaves access times alone.
func (t *Tree) SetNoAtime(on bool) { t.noAtime.Store(on) }

// touchAtime moves the access time of an inode that is being read, if it is not
// newer than the other times or a day old; in.mu is held.
func (t *Tree) touchAtime(in *inode) {
	now := t.now()
	in.used = now
	if t.noAtime.Load() {
		return
	}
	r := &in.row
	if newer(r.atime, r.mtime) && newer(r.atime, r.ctime) && now.Sec-r.atime.Sec < 24*3600 {
		return
	}
	r.atime, in.atimeSoft = now, true
}

// touchPassed is touchAtime for who may read a file that is passed through: of the
// reading itself nobody tells, so that opening and closing stand for it; in.mu is
// held.
func (f *File) touchPassed() {
	if f.in.passthrough && f.readable && !f.noAtime {
		f.t.touchAtime(f.in)
	}
}

// saveAtimes writes the rows of inodes whose access time moved.
func (t *Tree) saveAtimes() error {
	all := t.inodes.all()
	defer func() {
		for _, in := range all {
			t.release(in)
		}
	}()
	var moved []*inode
	for _, in := range all {
		in.mu.Lock()
		if in.atimeSoft && !in.orphan {
			moved = append(moved, in)
		}
		in.mu.Unlock()
	}
	for len(moved) > 0 {
		n := min(len(moved), atimesStep)
		if err := t.saveSome(moved[:n]); err != nil {
			return err
		}
		moved = moved[n:]
	}
	return nil
}

// saveSome holds the gate exclusively, so that nobody writes a newer row between
// looking and applying.
func (t *Tree) saveSome(moved []*inode) error {
	t.gate.Lock()
	defer t.gate.Unlock()
	c := t.newChange()
	defer c.recycle()
	var saved []*inode
	for _, in := range moved {
		in.mu.Lock()
		defer in.mu.Unlock() // nobody waits for two of them, for the gate is held
		if in.atimeSoft && !in.orphan {
			c.rowAlone(in)
			saved = append(saved, in)
		}
	}
	if c.b.Len() == 0 {
		return nil
	}
	seq, err := c.send()
	if err != nil {
		return noSpace(err)
	}
	for _, in := range saved {
		in.seq, in.counted, in.atimeSoft = max(in.seq, seq), in.row.tally(), false
	}
	return nil
}

// rowAlone writes the row of an inode as it is in memory; in.mu is held.
func (c *change) rowAlone(in *inode) {
	if in.seq < c.t.kept.Load() {
		c.err = errors.Join(c.err, c.carry(in))
	}
	c.putRow(&edit{in: in, row: in.row})
}
