package tree

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/dag"
	"skep/chunker/link"
)

// What is fetched is flushed when no more of it comes, or else after ten seconds.
func TestFetchedFlushedInLull(t *testing.T) { synctest.Test(t, fetchedFlushedInLull) }

func fetchedFlushedInLull(t *testing.T) {
	const chunks = 40
	c := &committed{files: map[link.Link][]byte{}}
	d, count := runningDevice(t, Options{Content: c})
	content := pattern(chunks*dag.ChunkSize, 1)
	ino := c.gone(t, d, content)
	time.Sleep(time.Minute)
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer f.Release()
	read := func(from, to int, every time.Duration) (flushed int) {
		_, n := count.during(func() {
			for i := from; i < to; i++ {
				d.readChunk(c, ino, content, i)
				time.Sleep(every)
				synctest.Wait()
			}
		})
		return n
	}
	if n := read(0, 20, flushEvery*9/10); n != 0 {
		t.Errorf("flushed %d times while more came", n)
	}
	if n := read(20, 21, 3*flushEvery); n != 1 {
		t.Errorf("flushed %d times when no more came", n)
	}
	if n := read(21, 22, time.Minute); n != 1 {
		t.Errorf("flushed %d times after one more", n)
	}
	if n := read(22, chunks, time.Second*9/10); n < 18/2 {
		t.Errorf("flushed %d times by who reads slowly", n)
	}
}

func TestLull(t *testing.T) {
	var l lull
	came := uint64(0)
	looks := func(files, n int) (over int) {
		for range n {
			came++
			if l.over(files, came) {
				over++
			}
		}
		return over
	}
	if looks(1, lullLooks-1) != 0 || looks(1, 1) != 1 || looks(1, 10*lullLooks) != 10 {
		t.Error("what goes on coming is not recorded every ten seconds")
	}
	if looks(0, 100) != 0 {
		t.Error("nothing is recorded")
	}
	if looks(lullFiles+1, 3) != 3 {
		t.Error("many files wait")
	}
	if looks(1, 1) != 0 || !l.over(1, came) || l.over(0, came) {
		t.Error("the lull is not seen")
	}
}
