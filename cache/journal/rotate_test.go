package journal

import (
	"errors"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"skep/test/memdisk"
)

// A segment becomes full while somebody waits for a flush of it, and one of the two
// flushes fails: whoever's it was, nothing in the segment counts as flushed.
func TestRotationFailsBesideASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memdisk.New()
		if err := d.Mkdir("/j"); err != nil {
			t.Fatal(err)
		}
		j, err := Open("/j", Options{Disk: d, SegmentSize: 64 << 10}, func(uint64, []byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		seq, err := j.Append([]byte("x"), false)
		if err != nil {
			t.Fatal(err)
		}
		appended := make(chan error, 1)
		met := false
		d.Watch(func(e memdisk.Event, after bool) {
			if met || after || e.Kind != memdisk.Flush {
				return
			}
			met = true
			failed := false
			d.Fail(func(e memdisk.Event) error {
				if e.Kind == memdisk.Flush && !failed {
					failed = true
					return unix.EIO
				}
				return nil
			})
			go func() {
				var err error
				for i := 0; i < 10 && err == nil; i++ {
					_, err = j.Append(make([]byte, 15000), false)
				}
				appended <- err
			}()
			synctest.Wait() // the segment is full: it has flushed it, or waits
		})
		if err := j.SyncTo(seq); !errors.Is(err, ErrFailed) {
			t.Errorf("a sync beside it says %v", err)
		}
		if err := <-appended; !errors.Is(err, ErrFailed) {
			t.Errorf("what was to go into the next segment: %v", err)
		}
		if j.Durable(seq) {
			t.Error("the record counts as flushed")
		}
	})
}

// What was appended before a rotation that was asked for goes, and nothing after it.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{}, func(uint64, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "b", "", "c"} {
		if p != "" {
			if _, err := j.Append([]byte(p), false); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for range 2 { // the second finds nothing to rotate
			first, err := j.Rotate(0)
			if err == nil {
				err = j.DropBefore(first)
			}
			if err != nil || first != 3 || j.First() != 3 || !j.Durable(2) {
				t.Fatalf("begins at %d, then at %d, %v", first, j.First(), err)
			}
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var left string
	j, err = Open(dir, Options{}, func(_ uint64, p []byte) error { left += string(p); return nil })
	if err != nil || left != "c" {
		t.Fatalf("%q is left, %v", left, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
