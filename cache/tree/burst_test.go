package tree

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// Of many small files, only the first get backing files; a large one
// or a pause makes that as it was.
func TestBurstOfSmallFiles(t *testing.T) {
	var clock atomic.Int64
	d := newDevice(t, Options{Passthrough: true, Now: func() time.Time { return time.Unix(1000, clock.Load()) }})
	n := 0
	create := func(size int) (passed bool) {
		n++
		clock.Add(int64(time.Millisecond))
		f, _, err := d.Tree.Create(ctx, Root, fmt.Sprint(n), 0o644, os.O_WRONLY, Owner{})
		must(t, err)
		defer f.Release()
		if _, passed = f.Passthrough(); !passed {
			writeAt(t, f, pattern(size, 1), 0)
		} else {
			_, err = f.in.file.WriteAt(pattern(size, 1), 0)
			must(t, err)
		}
		return passed
	}
	for i := range 3 * burstBegins {
		if passed := create(100); passed != (i < burstBegins) {
			t.Fatalf("small file %d: passed %v", i, passed)
		}
	}
	for range burstBegins { // every third file is no small one: a tree of sources
		if create(InlineMax+1) || create(100) || create(100) {
			t.Fatal("some that were not small ended the burst")
		}
	}
	create(burstEnds)
	if !create(100) {
		t.Error("a large file did not end the burst")
	}
	for range burstBegins {
		if !create(InlineMax + 1) {
			t.Fatal("files that are not small made a burst")
		}
	}
	for range burstBegins {
		create(100)
	}
	clock.Add(2 * burstGap)
	if !create(100) {
		t.Error("time did not end the burst")
	}
	if files := d.files.Last(); files != 4*burstBegins+2 {
		t.Errorf("%d backing files were made", files)
	}
}
