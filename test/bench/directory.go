package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// directory measures one directory of as many entries as is asked for: making them,
// getting them out, and, with a daemon that has just begun, listing them while
// others come and go, and making one more.
func (b *bench) directory(ctx context.Context) error {
	b.r.section(fmt.Sprintf("A directory of %d entries, %d peers", b.c.files, b.c.peers))
	dir := filepath.Join(b.drive, "large")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	l := newListing(dir, b.c.files)
	sync := func() error { return b.skep(ctx, "home", "sync") }
	begin := func() error { _, err := b.restart(ctx); return err }
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"make all", func() error { return l.make(ctx) }},
		{"sync of all", sync},
		{"end, begin, mount", begin},
		{"list while it changes", l.list},
		{"sync of what changed", sync},
		{"create", func() error { return os.WriteFile(filepath.Join(dir, "one more"), nil, 0o644) }},
		{"sync of that", sync},
	} {
		c, err := b.timed("home", step.do)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		b.r.line(step.name, "%.3f s, %.2f of the daemon; %d MiB", c.time, c.daemon, peak(b.daemonOf("home")))
	}
	b.r.line("", "listed in %d pieces; after most of them one entry went, one came and one got another name", l.pieces)
	return l.check()
}

// listing is how often each name of a directory was listed while it changed.
type listing struct {
	dir     string
	entries int // f0, f1 and so on
	seen    map[string]int
	changed map[string]bool // names that came or went meanwhile
	pieces  int
}

func newListing(dir string, entries int) *listing {
	return &listing{dir: dir, entries: entries, seen: map[string]int{}, changed: map[string]bool{".": true, "..": true}}
}

func (l *listing) path(name string) string { return filepath.Join(l.dir, name) }

// make makes the entries.
func (l *listing) make(ctx context.Context) error {
	for i := 0; i < l.entries && ctx.Err() == nil; i++ {
		if err := unix.Mknod(l.path(fmt.Sprint("f", i)), unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// list lists the directory piece by piece, each of which meets another directory.
func (l *listing) list() error {
	fd, err := unix.Open(l.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n == 0 {
			return err
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			l.seen[name]++
		}
		if l.pieces++; l.pieces > l.entries/atOnce {
			continue // what comes is listed, too: that would never end
		}
		if err := l.change(); err != nil {
			return err
		}
	}
}

// atOnce is about how many entries a piece of a listing has at most.
const atOnce = 2048

// change has one entry go, another get another name, and a new one come.
func (l *listing) change() error {
	gone, old, fresh := fmt.Sprint("f", l.pieces*7%l.entries), fmt.Sprint("f", (l.pieces*11+1)%l.entries), fmt.Sprint("new", l.pieces)
	var err error
	if !l.changed[gone] && !l.changed[old] && gone != old {
		err = errors.Join(os.Remove(l.path(gone)), os.Rename(l.path(old), l.path("was "+old)))
		l.changed[gone], l.changed[old], l.changed["was "+old] = true, true, true
	}
	l.changed[fresh] = true
	return errors.Join(err, os.WriteFile(l.path(fresh), nil, 0o644))
}

// check finds whether what stayed was listed once, and the rest once at most.
func (l *listing) check() error {
	for name, n := range l.seen {
		if n > 1 {
			return fmt.Errorf("%s was listed %d times", name, n)
		}
	}
	for i := range l.entries {
		if name := fmt.Sprint("f", i); l.seen[name] == 0 && !l.changed[name] {
			return fmt.Errorf("%s was not listed", name)
		}
	}
	return nil
}
