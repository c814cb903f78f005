package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// perDir is how many files a directory has in a drive of many files, and how many
// directories one above those.
const perDir = 100

// files measures a drive that grows tenfold again and again, up to as many files as
// is asked for: making them, what one does then with a daemon that has just begun,
// and going through all of them.
func (b *bench) files(ctx context.Context) error {
	b.r.section(fmt.Sprintf("A drive of %d files, %d peers", b.c.files, b.c.peers))
	for from, to := 0, min(1000, b.c.files); from < to; from, to = to, min(10*to, b.c.files) {
		if err := b.grow(ctx, from, to); err != nil {
			return err
		}
		if err := b.use(ctx, to); err != nil {
			return err
		}
	}
	return b.walk(ctx)
}

func (b *bench) top() string { return filepath.Join(b.drive, "top") }

// dirOf is the directory of a file, by its number.
func (b *bench) dirOf(i int) string {
	return filepath.Join(b.top(), fmt.Sprint("u", i/(perDir*perDir)), fmt.Sprint("d", i/perDir%perDir))
}

// grow makes files, and waits until all are safely out.
func (b *bench) grow(ctx context.Context, from, to int) error {
	in, err := b.timed("home", func() error {
		for i := from; i < to && ctx.Err() == nil; i++ {
			if err := b.plant(i); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	out, err := b.sync(ctx)
	if err != nil {
		return err
	}
	n := float64(to - from)
	b.r.line(fmt.Sprintf("%d files", to), "%.0f a second, %.0f µs of the daemon each; sync %.1f s", n/in.time, in.daemon*1e6/n, out.time)
	b.memory("home")
	return nil
}

// plant makes one small file.
func (b *bench) plant(i int) error {
	dir := b.dirOf(i)
	if i%perDir == 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i%perDir)), fmt.Append(nil, i), 0o644)
}

// use measures what one does on a drive of so many files with a daemon that has
// just begun.
func (b *bench) use(ctx context.Context, files int) error {
	mounted, err := b.restart(ctx)
	if err != nil {
		return err
	}
	b.r.line("mount", "%.1f ms", mounted*1e3)
	last, other := b.dirOf(files-1), filepath.Join(b.drive, "other")
	sync := func() error { return b.skep(ctx, "home", "sync") }
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"ls", func() error { _, err := os.ReadDir(last); return err }},
		{"stat", func() error { _, err := os.Stat(filepath.Join(last, "f7")); return err }},
		{"create", func() error { return os.WriteFile(filepath.Join(last, "new"), []byte("new"), 0o644) }},
		{"rename of the top", func() error { return os.Rename(b.top(), other) }},
		{"sync of these", sync},
		{"create", func() error { return os.WriteFile(filepath.Join(b.drive, "small"), nil, 0o644) }},
		{"sync of that", sync},
	} {
		c, err := b.timed("home", step.do)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		b.r.line(step.name, "%.1f ms, %.0f of the daemon", c.time*1e3, c.daemon*1e3)
	}
	b.memory("home")
	return os.Rename(other, b.top())
}

// walk goes through the whole drive.
func (b *bench) walk(ctx context.Context) error {
	for _, argv := range [][]string{{"find"}, {"ls", "-lR"}, {"du", "-s"}} {
		c, err := b.timed("home", func() error { return exec.CommandContext(ctx, argv[0], append(argv[1:], b.top())...).Run() })
		if err != nil {
			return err
		}
		b.r.line(fmt.Sprint(argv), "%.1f s, %.1f of the daemon", c.time, c.daemon)
		b.memory("home")
	}
	return nil
}
