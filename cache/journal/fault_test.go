package journal

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"skep/test/memdisk"
)

func openOn(t *testing.T, d *memdisk.Disk) (*Journal, string) {
	t.Helper()
	var got []string
	j, err := Open("/j", Options{Disk: d, SegmentSize: 64 << 10}, func(_ uint64, p []byte) error {
		got = append(got, string(p[:min(len(p), 3)]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return j, fmt.Sprint(got)
}

func failing(k memdisk.Kind, err error) func(memdisk.Event) error {
	return func(e memdisk.Event) error {
		if e.Kind == k {
			return err
		}
		return nil
	}
}

// After a flush that failed nothing more is taken. Another start finds the
// records, which the kernel still has, and does not believe that they are on the
// disk.
func TestFailedFlushIsNotForgotten(t *testing.T) {
	d := memdisk.New()
	j, _ := openOn(t, d)
	appendAll(t, j, "a")
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, "b")
	d.Fail(failing(memdisk.Flush, unix.EIO))
	if err := j.Sync(); !errors.Is(err, ErrFailed) || !errors.Is(err, unix.EIO) {
		t.Fatalf("a flush that failed: %v", err)
	}
	d.Fail(nil)
	if err := j.Sync(); !errors.Is(err, ErrFailed) {
		t.Fatalf("the next flush: %v", err)
	}
	if _, err := j.Append([]byte("c"), false); !errors.Is(err, ErrFailed) {
		t.Fatalf("a record after it: %v", err)
	}
	j, got := openOn(t, d)
	if got != "[a b]" {
		t.Fatalf("opened again, it has %s", got)
	}
	appendAll(t, j, "c")
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, got := openOn(t, d.PowerLoss(d.Len(), memdisk.All)); got != "[a b c]" {
		t.Errorf("after power loss it has %s", got)
	}
}

// On a full disk only what frees space is taken, as far as the reserve goes;
// when there is room again, all goes on.
func TestFullDisk(t *testing.T) {
	d := memdisk.New()
	j, _ := openOn(t, d)
	full := func(e memdisk.Event) error {
		if e.Kind == memdisk.Link || e.Kind == memdisk.Resize {
			return unix.ENOSPC
		}
		return nil
	}
	d.Fail(full)
	big := string(make([]byte, 10000))
	n := 0
	var err error
	for ; err == nil; n++ {
		_, err = j.Append([]byte(big), false)
	}
	if !errors.Is(err, unix.ENOSPC) || n < 3 {
		t.Fatalf("record %d: %v", n, err)
	}
	if _, err := j.Append([]byte("free"), true); err != nil {
		t.Fatalf("a record that frees space: %v", err)
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	d.Fail(nil)
	appendAll(t, j, big)
	j2, got := openOn(t, d.Kill(d.Len()))
	if j2.Next() != j.Next() {
		t.Errorf("%d records, opened again %d: %s", j.Next()-1, j2.Next()-1, got)
	}
}

// Where writing again what is there takes new room, what frees space gets it: room that
// was held is given up for it, also for what opening a log writes.
func TestFullDiskWithoutWritingInPlace(t *testing.T) {
	d := memdisk.New()
	j, _ := openOn(t, d)
	appendAll(t, j, "a")
	yields := 0
	yield := func() bool {
		yields++
		d.Fail(nil)
		return true
	}
	full := func() { d.Fail(failing(memdisk.Write, unix.ENOSPC)) }
	j.yield = yield
	full()
	if _, err := j.Append([]byte("b"), false); !errors.Is(err, unix.ENOSPC) || yields > 0 {
		t.Fatalf("a record that frees nothing: %v, %d times", err, yields)
	}
	if seq, err := j.Append([]byte("c"), true); err != nil || seq != 2 || yields != 1 {
		t.Fatalf("a record that frees space: %d, %v, %d times", seq, err, yields)
	}
	full()
	again, err := Open("/j", Options{Disk: d, SegmentSize: 64 << 10, Yield: yield}, func(uint64, []byte) error { return nil })
	if err != nil || yields != 2 || again.Next() != 3 {
		t.Fatalf("opened: %v, %d times", err, yields)
	}
	if _, got := openOn(t, d.PowerLoss(d.Len(), memdisk.All)); got != "[a c]" {
		t.Errorf("after power loss it has %s", got)
	}
}

// A disk that fails otherwise is not written to any more.
func TestFailedWrite(t *testing.T) {
	d := memdisk.New()
	j, _ := openOn(t, d)
	appendAll(t, j, "a")
	d.Fail(failing(memdisk.Write, unix.EIO))
	if _, err := j.Append([]byte("b"), false); !errors.Is(err, ErrFailed) {
		t.Fatalf("a write that failed: %v", err)
	}
	d.Fail(nil)
	if _, err := j.Append([]byte("c"), false); !errors.Is(err, ErrFailed) {
		t.Fatalf("the next: %v", err)
	}
	if _, got := openOn(t, d); got != "[a]" {
		t.Errorf("opened again, it has %s", got)
	}
}

// What is handed on when a log is opened is on the disk: who puts it elsewhere is never
// ahead of the log, if the power goes before the log is open.
func TestWhatIsReplayedIsOnTheDisk(t *testing.T) {
	d := memdisk.New()
	j, _ := openOn(t, d)
	big := string(make([]byte, 40000))
	appendAll(t, j, "a", big, big, "b", "c") // the process ends here
	if len(j.segments) != 2 {
		t.Fatalf("%d segments", len(j.segments))
	}
	replayed := uint64(0)
	_, err := Open("/j", Options{Disk: d, SegmentSize: 64 << 10}, func(seq uint64, _ []byte) error {
		replayed = seq
		if after, got := openOn(t, d.PowerLoss(d.Len(), memdisk.All)); after.Next() <= seq {
			t.Errorf("record %d was replayed, after power loss there are %s", seq, got)
		}
		return nil
	})
	if err != nil || replayed != 5 {
		t.Errorf("replayed up to %d: %v", replayed, err)
	}
}
