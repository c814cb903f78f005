package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// program does something on the drive again and again.
type program struct {
	name string
	// begin makes what step i uses. The end comes when all steps are done.
	begin func(dir string) (step func(i int) error, end func() error, err error)
}

// programs are what the drive is used for while it is uploaded.
var programs = []program{
	{"read 4 KiB", func(dir string) (func(int) error, func() error, error) {
		return inPlace(dir, func(f *os.File, b []byte, off int64) error {
			_, err := f.ReadAt(b, off)
			return err
		})
	}},
	{"write 4 KiB + fsync", func(dir string) (func(int) error, func() error, error) {
		return inPlace(dir, func(f *os.File, b []byte, off int64) error {
			_, err := f.WriteAt(b, off)
			return errors.Join(err, f.Sync())
		})
	}},
	{"create 4 KiB", func(dir string) (func(int) error, func() error, error) {
		b := make([]byte, 4096)
		return func(i int) error { return os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b, 0o644) }, func() error { return nil }, nil
	}},
}

// inPlace has op go to one place after the other of a file.
func inPlace(dir string, op func(f *os.File, b []byte, off int64) error) (func(int) error, func() error, error) {
	const blocks, block = 1024, 4096
	path := filepath.Join(dir, "used")
	if err := writeFile(path, blocks*block, 0); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	b := randomBytes(block)
	return func(i int) error { return op(f, b, int64(i*7%blocks)*block) }, f.Close, nil
}

// foreground measures what programs get of the drive while a file is uploaded that
// nobody waits for, as a share of what they get otherwise. The peers run on the same
// machine, so what they take is taken, too.
func (b *bench) foreground(ctx context.Context) error {
	size := b.c.size / 2
	b.r.section(fmt.Sprintf("Beside the upload of a file of %d MiB that nobody waits for, %d peers", size>>20, b.c.peers))
	for i, p := range programs {
		if err := b.beside(ctx, p, uint32(i+1), size); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	b.memory("home")
	return nil
}

// beside measures one program: alone, beside an upload, and alone again.
func (b *bench) beside(ctx context.Context, p program, salt uint32, size int64) error {
	dir := filepath.Join(b.drive, fmt.Sprint("beside", salt))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	step, end, err := p.begin(dir)
	if err != nil {
		return err
	}
	steps := counter{step: step}
	alone := func() (float64, error) {
		if err := b.skep(ctx, "home", "sync"); err != nil {
			return 0, err
		}
		return steps.rate(time.After(2 * time.Second))
	}
	before, err := alone()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "large"), size, salt); err != nil {
		return err
	}
	if err := b.waitForUpload(ctx, true); err != nil {
		return err
	}
	begin, done, failed := time.Now(), make(chan time.Time), error(nil)
	go func() {
		defer close(done)
		failed = b.waitForUpload(ctx, false)
	}()
	beside, err := steps.rate(done)
	took := time.Since(begin)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	after, err := alone()
	if err != nil {
		return err
	}
	mean := (before + after) / 2
	b.r.line(p.name, "%.0f a second alone, %.0f beside\t%.2f\tlongest %v, upload %.0f MB/s", mean, beside, beside/mean,
		steps.longest.Round(time.Millisecond), float64(size)/1e6/took.Seconds())
	return end()
}

// counter does steps one after the other.
type counter struct {
	step    func(i int) error
	done    int
	longest time.Duration
}

// rate does steps until stop, and returns how many a second that were.
func (c *counter) rate(stop <-chan time.Time) (float64, error) {
	var stopped atomic.Bool
	go func() {
		<-stop
		stopped.Store(true)
	}()
	begin, first := time.Now(), c.done
	for last := begin; !stopped.Load(); c.done++ {
		if err := c.step(c.done); err != nil {
			return 0, err
		}
		now := time.Now()
		c.longest, last = max(c.longest, now.Sub(last)), now
	}
	return float64(c.done-first) / time.Since(begin).Seconds(), nil
}

// waitForUpload returns when a commit is under way, or none is any more.
func (b *bench) waitForUpload(ctx context.Context, under bool) error {
	for {
		s, err := b.status(ctx, "home")
		if err != nil || s.Uploading == under {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
