package tree

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// stuck is content of which nothing comes but the first chunks.
type stuck struct {
	*committed
	comes   int64
	waiting chan int // how many wait
}

func (s *stuck) LendChunk(ctx context.Context, f dag.File, i int64, use func([]byte)) error {
	if i < s.comes {
		return s.committed.LendChunk(ctx, f, i, use)
	}
	s.waiting <- <-s.waiting + 1
	<-ctx.Done()
	s.waiting <- <-s.waiting - 1
	return ctx.Err()
}

// What is fetched ahead of a reader ends when nobody has the file open any more.
func TestReadingAheadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{&committed{files: map[link.Link][]byte{}}, 2, make(chan int, 1)}
		s.waiting <- 0
		d := &device{t: t, dir: t.TempDir(), fs: disk.Local, opt: Options{Content: s}}
		d.open()
		defer func() {
			must(t, d.st.Close())
			time.Sleep(time.Minute) // leveldb's last goroutine ends
		}()
		ino := d.write(Root, "f", pattern(10*dag.ChunkSize, 1))
		s.take(t, d, ino)
		evict(t, d, ino)
		waiting := func() int {
			synctest.Wait()
			n := <-s.waiting
			s.waiting <- n
			return n
		}
		var open []*File
		for range 2 {
			f, err := d.Open(ctx, ino, os.O_RDONLY)
			must(t, err)
			open = append(open, f)
		}
		for i := range s.comes {
			_, err := open[0].ReadAt(ctx, make([]byte, 10), i*dag.ChunkSize)
			must(t, err)
		}
		if n := waiting(); n != aheadChunks {
			t.Errorf("%d chunks are fetched ahead", n)
		}
		open[0].Release()
		if n := waiting(); n != aheadChunks {
			t.Errorf("%d are, as long as somebody has it open", n)
		}
		open[1].Release()
		if n := waiting(); n != 0 {
			t.Errorf("%d are in the end", n)
		}
	})
}
