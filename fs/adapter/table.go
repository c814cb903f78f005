package adapter

import (
	"sync"
	"sync/atomic"

	"skep/cache/tree"
)

// openFile is an open file as the kernel knows it.
type openFile struct {
	*tree.File
	writable bool
	readable bool
	passed   bool // the kernel reads and writes straight from and to the backing file
	past     bool // … through the daemon, but past its page cache
}

// shardCount is into how many parts tables are divided, so that requests on
// different files seldom wait for each other.
const shardCount = 16

// fileTable finds open files by the numbers that the kernel was given.
type fileTable struct {
	last   atomic.Uint64 // the number given out last
	shards [shardCount]fileShard
}

type fileShard struct {
	mu sync.RWMutex // guards m
	m  map[uint64]*openFile
}

func (t *fileTable) init() {
	for i := range t.shards {
		t.shards[i].m = map[uint64]*openFile{}
	}
}

func (t *fileTable) shard(fh uint64) *fileShard { return &t.shards[fh%shardCount] }

// add gives an open file a number that was never used before.
func (t *fileTable) add(e *openFile) uint64 {
	fh := t.last.Add(1)
	s := t.shard(fh)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[fh] = e
	return fh
}

// get returns the open file of a number.
func (t *fileTable) get(fh uint64) (*openFile, bool) {
	s := t.shard(fh)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.m[fh]
	return e, ok
}

// take removes the open file of a number.
func (t *fileTable) take(fh uint64) (*openFile, bool) {
	s := t.shard(fh)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.m[fh]
	delete(s.m, fh)
	return e, ok
}

// takeAll removes all.
func (t *fileTable) takeAll() []*openFile {
	var all []*openFile
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, e := range s.m {
			all = append(all, e)
		}
		clear(s.m)
		s.mu.Unlock()
	}
	return all
}
