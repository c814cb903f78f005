package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const sparseSize = 50 << 30

// image measures what getting out takes of a file that is nearly all hole, and of a
// large one that is written at random.
func (b *bench) image(ctx context.Context) error {
	b.r.section(fmt.Sprintf("Files of %d GiB with 20 MiB in it, and of %d MiB, %d peers", sparseSize>>30, b.c.size>>20, b.c.peers))
	sparse, large := filepath.Join(b.drive, "sparse"), filepath.Join(b.drive, "image")
	every := make([]int64, 20)
	for i := range every {
		every[i] = int64(i) * sparseSize / int64(len(every))
	}
	err := b.edited(ctx, "20 MiB far apart", sparse, 20, func(f *os.File) error {
		return errors.Join(writeAt(f, every, chunk), f.Truncate(sparseSize))
	})
	if err == nil {
		err = b.edited(ctx, "20 bytes of it", sparse, 1, func(f *os.File) error { return writeAt(f, []int64{3 << 30}, 20) })
	}
	if err == nil {
		err = b.edited(ctx, "all", large, int(b.c.size/chunk), func(f *os.File) error { return fill(f, b.c.size, 0) })
	}
	for writes := 1; writes <= 4096 && err == nil; writes *= 16 {
		offs, chunks := scattered(writes, b.c.size)
		err = b.edited(ctx, fmt.Sprintf("%d × 4 KiB at random", writes), large, chunks, func(f *os.File) error { return writeAt(f, offs, 4096) })
	}
	return err
}

// edited opens a file, changes so many chunks of it, and prints what it takes until
// that is safely out.
func (b *bench) edited(ctx context.Context, what, path string, chunks int, change func(*os.File) error) error {
	in, err := b.timed("home", func() error {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(change(f), f.Sync(), f.Close())
	})
	if err != nil {
		return err
	}
	out, err := b.sync(ctx)
	if err != nil {
		return err
	}
	b.r.line(what, "%d chunks: written in %.2f s, out in %.2f s; %.2f s of the daemon; %d MiB", chunks, in.time, out.time,
		in.daemon+out.daemon, peak(b.daemonOf("home")))
	return nil
}

// scattered are places for writes of 4 KiB in a file of a size, and how many chunks
// they meet.
func scattered(writes int, size int64) (offs []int64, chunks int) {
	r := rand.New(rand.NewPCG(1, uint64(writes)))
	met := map[int64]bool{}
	for range writes {
		off := r.Int64N(size/4096) * 4096
		offs = append(offs, off)
		met[off/chunk] = true
	}
	return offs, len(met)
}

// writeAt writes so many random bytes at each place, no two alike.
func writeAt(f *os.File, offs []int64, n int) error {
	p := randomBytes(n)
	for _, off := range offs {
		binary.LittleEndian.PutUint64(p, uint64(off))
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}
