package tree

import (
	"context"
	"sync"
	"sync/atomic"
)

// usualIdle is how many inodes are kept in memory beside those in use.
const usualIdle = 32 << 10

// inodeShards is how many locks the table of inodes has, so that operations on
// different files do not meet at one.
const inodeShards = 64

// inodeTable holds the inodes in memory. An inode is there while somebody holds
// a reference, and for some time after.
//
// A reference is counted without a lock by whoever has one already; from none to
// one it goes under the lock of the shard only, and so does the inode's end.
type inodeTable struct {
	idle   int // as Options.Idle; not changed after init
	shards [inodeShards]inodeShard
	known  atomic.Int64 // names that directories know: see knownNames
}

type inodeShard struct {
	mu      sync.Mutex // guards the next two, and every step of an inode's refs from 0 to 1
	m       map[Ino]*inode
	dropped uint64 // how many have left m

	written map[*inode]struct{} // guarded by mu; see writer
}

// refs counts who uses an inode.
type refs struct {
	n     atomic.Int64
	ended atomic.Bool // an orphan that was forgotten
}

func (t *inodeTable) init(idle int) {
	if t.idle = idle; idle == 0 {
		t.idle = usualIdle
	}
	for i := range t.shards {
		t.shards[i].m, t.shards[i].written = map[Ino]*inode{}, map[*inode]struct{}{}
	}
}

func (t *inodeTable) shard(ino Ino) *inodeShard { return &t.shards[ino%inodeShards] }

// find returns an inode that is in memory, with a reference; else nil, and what
// take wants to be told.
func (t *inodeTable) find(ino Ino) (in *inode, dropped uint64) {
	s := t.shard(ino)
	s.mu.Lock()
	in, dropped = s.m[ino], s.dropped
	if in != nil {
		in.refs.n.Add(1)
	}
	s.mu.Unlock()
	return in, dropped
}

// add puts an inode that nobody else knows into the table, with a reference.
func (t *inodeTable) add(in *inode) {
	s := t.shard(in.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[in.ino] = in
	in.refs.n.Add(1)
}

// take puts an inode into the table that was read from the tables of state while
// dropped was what it is, and returns it with a reference; or the one that is
// there already. If one has left meanwhile, what was read may be out of date:
// then ok is false.
func (t *inodeTable) take(in *inode, dropped uint64) (_ *inode, ok bool) {
	s := t.shard(in.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if there := s.m[in.ino]; there != nil {
		in = there
	} else if s.dropped != dropped {
		return nil, false
	} else {
		s.m[in.ino] = in
	}
	in.refs.n.Add(1)
	return in, true
}

// drop takes an inode out that nobody has a reference of; s.mu is held.
func (t *inodeTable) drop(s *inodeShard, in *inode) {
	delete(s.m, in.ino)
	s.dropped++
	t.known.Add(-int64(len(in.known.m)))
}

// remove takes an inode out that came to nothing: nobody but the caller knows it.
func (t *inodeTable) remove(in *inode) {
	s := t.shard(in.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	t.drop(s, in)
}

// hold takes another reference of an inode that the caller has one of.
func (in *inode) hold() { in.refs.n.Add(1) }

// release gives a reference back.
func (t *inodeTable) release(in *inode) {
	if in.refs.n.Add(-1) > 0 {
		return
	}
	s := t.shard(in.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.refs.ended.Load() && in.refs.n.Load() == 0 && s.m[in.ino] == in {
		t.drop(s, in)
	}
	t.evictSome(s)
}

// evictSome drops a few inodes that nobody uses, in no particular order, if
// there are too many; s.mu is held. It makes up for those that were in use at
// their release.
func (t *inodeTable) evictSome(s *inodeShard) {
	if len(s.m) <= t.idle/inodeShards {
		return // beginning to walk a map costs, too
	}
	tries := 8
	for _, in := range s.m {
		if tries == 0 || len(s.m) <= t.idle/inodeShards {
			return
		}
		tries--
		if in.refs.n.Load() == 0 && (!in.atimeSoft || tries == 0) { // nobody changes it meanwhile
			t.drop(s, in)
		}
	}
}

// writer takes note that an inode is open for writing, which a cut has to look
// at. It stays in memory until noWriter.
func (t *inodeTable) writer(in *inode) {
	s := t.shard(in.ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.written[in]; !ok {
		s.written[in] = struct{}{}
		in.hold()
	}
}

// noWriter takes note that an inode is not open for writing any more, and that
// the tables have all that is known of it.
func (t *inodeTable) noWriter(in *inode) {
	s := t.shard(in.ino)
	s.mu.Lock()
	_, ok := s.written[in]
	delete(s.written, in)
	s.mu.Unlock()
	if ok {
		t.release(in)
	}
}

// writers returns the inodes that are open for writing, each with a reference.
func (t *inodeTable) writers() []*inode {
	var out []*inode
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for in := range s.written {
			in.hold()
			out = append(out, in)
		}
		s.mu.Unlock()
	}
	return out
}

// acquire returns the inode with a reference; the caller releases it.
func (t *Tree) acquire(ctx context.Context, ino Ino) (*inode, error) {
	for {
		in, dropped := t.inodes.find(ino)
		if in != nil {
			return in, nil
		}
		r, err := t.readRow(ctx, ino)
		if err != nil {
			return nil, err
		}
		in = &inode{ino: ino, row: r, counted: r.tally()}
		in.charged = in.charge()
		if in, ok := t.inodes.take(in, dropped); ok {
			return in, nil
		}
	}
}

// release gives a reference back.
func (t *Tree) release(in *inode) { t.inodes.release(in) }

// Forget tells that the kernel dropped the inode: an unlinked one that is not
// open ends now, one that is held for a mapping with that.
func (t *Tree) Forget(ino Ino) {
	in, _ := t.inodes.find(ino)
	if in == nil {
		return
	}
	in.mu.Lock()
	end := in.orphan && in.opens == 0 && !in.stale
	in.forgotten = in.orphan && in.opens > 0
	if end {
		in.stale = true
		t.dropContent(in)
	}
	in.mu.Unlock()
	if end {
		if t.orphans.remove(in) {
			t.changed() // what was held for it may be given up
		}
		in.refs.ended.Store(true)
		t.release(in) // the reference that kept the orphan
		if t.written.remove(in) {
			t.release(in)
		}
	}
	t.release(in)
}

// all returns every inode in memory, each with a reference.
func (t *inodeTable) all() []*inode {
	var out []*inode
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, in := range s.m {
			in.refs.n.Add(1)
			out = append(out, in)
		}
		s.mu.Unlock()
	}
	return out
}

// any reports whether fn is true for an inode in memory.
func (t *inodeTable) any(fn func(*inode) bool) bool {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		all := make([]*inode, 0, len(s.m))
		for _, in := range s.m {
			all = append(all, in)
		}
		s.mu.Unlock()
		for _, in := range all {
			in.mu.Lock()
			yes := fn(in)
			in.mu.Unlock()
			if yes {
				return true
			}
		}
	}
	return false
}
