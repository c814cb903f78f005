package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
	"skep/test/memdisk"
	"skep/test/seed"
)

// TestSafeWithinASecond: what was done more than a second before the power went is
// there, names and contents, though nobody asked for a flush: the kernel does not
// tell of syncfs.
func TestSafeWithinASecond(t *testing.T) {
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			from := seed.For(t)
			synctest.Test(t, func(t *testing.T) { safeWithinASecond(t, passthrough, from) })
		})
	}
}

// TestManySafeWithinASecond: so are more files at once than are flushed one by one.
func TestManySafeWithinASecond(t *testing.T) {
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { manySafeWithinASecond(t, passthrough) })
		})
	}
}

func manySafeWithinASecond(t *testing.T, passthrough bool) {
	run, end := running(t, passthrough)
	defer end()
	var all []made
	for i := range 1500 {
		m := made{fmt.Sprintf("file %d", i), bytes.Repeat([]byte{byte(i)}, 16<<10+1), time.Now()}
		if err := run.put(m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	checkAged(t, run, all)
}

// running is a drive that flushes by itself, in a bubble, until it is ended.
func running(t *testing.T, passthrough bool) (run *drive, end func()) {
	t.Helper()
	run, err := open(memdisk.New(), newHolders(), passthrough)
	if err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = run.Tree.Run(stopped) })
	return run, func() {
		stop()
		running.Wait()
		run.close()
		time.Sleep(time.Minute) // leveldb ends a moment after it is closed
	}
}

// made is a file that was written and got its name at a time.
type made struct {
	name    string
	content []byte
	at      time.Time
}

func safeWithinASecond(t *testing.T, passthrough bool, from uint64) {
	r := rand.New(rand.NewPCG(from, 3))
	run, end := running(t, passthrough)
	defer end()
	var all []made
	for i := range 60 {
		b := bytes.Repeat([]byte{byte(i + 1)}, []int{100, 20_000, 300_000}[i%3])
		m := made{fmt.Sprintf("file %d", i), b, time.Time{}}
		if err := run.put(m); err != nil {
			t.Fatal(err)
		}
		m.at = time.Now()
		all = append(all, m)
		time.Sleep(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
		if i%4 == 0 {
			synctest.Wait()
			checkAged(t, run, all)
		}
	}
	time.Sleep(time.Second)
	synctest.Wait()
	checkAged(t, run, all)
}

// put makes a file under another name, writes it, and gives it its name.
func (d *drive) put(m made) error {
	f, _, err := d.Tree.Create(ctx, tree.Root, "new", 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		return err
	}
	defer f.Release()
	if fd, ok := f.Passthrough(); ok {
		_, err = d.Backing(fd).WriteAt(m.content, 0)
	} else {
		_, err = f.WriteAt(ctx, m.content, 0, false)
	}
	return errors.Join(err, d.Tree.Rename(ctx, tree.Root, "new", tree.Root, m.name, 0))
}

// checkAged cuts the power and looks for all that is a second old.
func checkAged(t *testing.T, run *drive, all []made) {
	t.Helper()
	after, err := open(run.disk.PowerLoss(run.disk.Len(), memdisk.All), run.holders, run.passthrough)
	if err != nil {
		t.Fatal(err)
	}
	defer after.close()
	for _, m := range all {
		if time.Since(m.at) < time.Second {
			return
		}
		got, err := after.get(m.name)
		if err != nil || !bytes.Equal(got, m.content) {
			t.Errorf("%s, %v old, after power loss: %d bytes, %v; want %d", m.name, time.Since(m.at), len(got), err, len(m.content))
		}
	}
}

// get reads a file.
func (d *drive) get(name string) ([]byte, error) {
	a, err := d.Tree.Lookup(ctx, tree.Root, name)
	if err != nil {
		return nil, err
	}
	f, err := d.Tree.Open(ctx, a.Ino, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	b := make([]byte, a.Size)
	n, err := f.ReadAt(ctx, b, 0)
	return b[:n], err
}
