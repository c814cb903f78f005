package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// bench measures a drive on a swarm of processes.
type bench struct {
	*procs
	r      *report
	stream *bareStream

	drive, back string // where it is mounted, before and after the recovery
	bare        string // a directory of the local disk
}

// swarm measures a drive on a swarm of processes: in, out, and back.
func swarm(ctx context.Context, c config, r *report) error {
	stream, err := newBareStream()
	if err != nil {
		return fmt.Errorf("bare stream: %w", err)
	}
	defer stream.close()
	p := &procs{c: c}
	defer p.end()
	b := &bench{procs: p, r: r, stream: stream, drive: p.path("drive"), back: p.path("back"), bare: p.path("bare")}
	if err := b.start(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{{"large", b.large}, {"tree", b.many}, {"foreground", b.foreground}, {"files", b.files}, {"directory", b.directory},
		{"image", b.image}, {"back", b.brought}} {
		if !c.measures(part.name) {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// start makes the swarm and mounts a drive on it.
func (b *bench) start(ctx context.Context) error {
	for i := range b.c.peers {
		if err := b.peer(i); err != nil {
			return err
		}
	}
	if err := b.skep(ctx, "home", "init", "--words-file", b.path("words"), "--bootstrap", b.boot, "--offer", "0",
		"--listen", "/ip4/127.0.0.1/tcp/0"); err != nil {
		return err
	}
	for _, d := range []string{b.drive, b.bare, b.back} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := b.skep(ctx, "home", "mount", b.drive); err != nil {
		return err
	}
	return b.waitForPeers(ctx, "home")
}

// sync brings all that was written out, and tells what that took.
func (b *bench) sync(ctx context.Context) (cost, error) {
	return b.timed("home", func() error { return b.skep(ctx, "home", "sync") })
}

func (b *bench) memory(home string) {
	b.r.line("peak memory", "daemon %d MiB, largest peer %d MiB", peak(b.daemonOf(home)), b.largestPeer())
}

// large measures one large file: written, out to the swarm, read where it is.
// It goes out right after it was written, before a commit begins by itself.
func (b *bench) large(ctx context.Context) error {
	b.r.section(fmt.Sprintf("One file of %d MiB, %d peers", b.c.size>>20, b.c.peers))
	first, err := timed(func() error { return writeFile(filepath.Join(b.bare, "large"), b.c.size, 0) })
	if err != nil {
		return err
	}
	var in, out cost
	stream, err := b.stream.around(ctx, func() (err error) {
		if err := touch(2*b.c.size + 512<<20); err != nil {
			return err
		}
		in, out, err = b.writeAndSync(ctx)
		return err
	})
	if err != nil {
		return err
	}
	other := filepath.Join(b.bare, "other")
	second, err := timed(func() error { return writeFile(other, b.c.size, 0) })
	if err != nil {
		return err
	}
	b.compare("write + fsync", in.time, first, second)
	if err := b.synced(ctx, out, stream); err != nil {
		return err
	}
	if err := os.Remove(other); err != nil {
		return err
	}
	return b.readWarm()
}

func (b *bench) writeAndSync(ctx context.Context) (in, out cost, err error) {
	in, err = b.timed("home", func() error { return writeFile(filepath.Join(b.drive, "large"), b.c.size, 0) })
	if err != nil {
		return in, out, err
	}
	out, err = b.sync(ctx)
	return in, out, err
}

// compare prints what the mount took for the large file beside what the bare
// directory took before and after.
func (b *bench) compare(what string, mount, before, after float64) {
	mb, bare := float64(b.c.size)/1e6, (before+after)/2
	b.r.rate(what+", bare directory", mb/bare, 0, "")
	b.r.rate(what+", mount", mb/mount, mb/bare, "the bare directory")
}

// synced prints what getting the large file out took.
func (b *bench) synced(ctx context.Context, out cost, stream float64) error {
	s, err := b.status(ctx, "home")
	if err != nil {
		return err
	}
	expansion := float64(s.StoredBytes) / float64(b.c.size)
	b.r.line("stored at holders", "%.2f bytes for each byte", expansion)
	b.r.line("a bare libp2p stream", "%.0f MB/s, mean of before and after", stream)
	b.r.rate("sync to the swarm", float64(b.c.size)/1e6/out.time, stream/expansion, "a bare stream divided by the expansion")
	b.r.spent(out, b.c.size)
	b.memory("home")
	return nil
}

// readWarm reads what was written, as it is in memory.
func (b *bench) readWarm() error {
	bare := func() error { return readFile(filepath.Join(b.bare, "large")) }
	first, err := timed(bare)
	if err != nil {
		return err
	}
	mount, err := timed(func() error { return readFile(filepath.Join(b.drive, "large")) })
	if err != nil {
		return err
	}
	second, err := timed(bare)
	if err != nil {
		return err
	}
	b.compare("read warm", mount, first, second)
	return nil
}

// many measures a tree of many files.
func (b *bench) many(ctx context.Context) error {
	files, bytes, err := countTree(b.c.tree)
	if err != nil {
		return err
	}
	b.r.section(fmt.Sprintf("A tree of %d files, %d MB", files, bytes/1000000))
	onDisk, err := timed(func() error { return command(ctx, "cp", "-a", b.c.tree, filepath.Join(b.bare, "tree")) })
	if err != nil {
		return err
	}
	in, err := b.timed("home", func() error { return command(ctx, "cp", "-a", b.c.tree, filepath.Join(b.drive, "tree")) })
	if err != nil {
		return err
	}
	b.r.line("cp -a, bare directory", "%.0f files/s", float64(files)/onDisk)
	b.r.line("cp -a, mount", "%.0f files/s\t%.2f of the bare directory", float64(files)/in.time, onDisk/in.time)
	b.r.spent(in, bytes)
	before, err := b.status(ctx, "home")
	if err != nil {
		return err
	}
	out, err := b.sync(ctx)
	if err != nil {
		return err
	}
	after, err := b.status(ctx, "home")
	if err != nil {
		return err
	}
	b.r.line("sync to the swarm", "%.1f s, %.0f MB/s", out.time, float64(bytes)/1e6/out.time)
	b.r.spent(out, bytes)
	b.r.line("stored at holders", "%.2f bytes for each byte (compressed)", float64(after.StoredBytes-before.StoredBytes)/float64(bytes))
	b.memory("home")
	return nil
}

// leave brings all out and ends the daemon.
func (b *bench) leave(ctx context.Context) error {
	for _, argv := range [][]string{{"sync"}, {"umount", b.drive}, {"down"}} {
		if err := b.skep(ctx, "home", argv...); err != nil {
			return err
		}
	}
	return nil
}

// restart has another daemon serve the drive, and tells how long mounting took.
func (b *bench) restart(ctx context.Context) (seconds float64, err error) {
	if err := b.leave(ctx); err != nil {
		return 0, err
	}
	seconds, err = timed(func() error { return b.skep(ctx, "home", "mount", b.drive) })
	return seconds, errors.Join(err, b.waitForPeers(ctx, "home"))
}

// brought measures the way back on a bare machine.
func (b *bench) brought(ctx context.Context) error {
	b.r.section("Brought back from words")
	if err := b.leave(ctx); err != nil {
		return err
	}
	took, err := timed(func() error {
		return b.skep(ctx, "again", "recover", "--words-file", b.path("words"), "--bootstrap", b.boot, "--offer", "0",
			"--listen", "/ip4/127.0.0.1/tcp/0")
	})
	if err != nil {
		return err
	}
	mounted, err := timed(func() error { return b.skep(ctx, "again", "mount", b.back) })
	if err != nil {
		return err
	}
	b.r.line("recover, mount", "%.2f s, %.2f s", took, mounted)
	if err := b.waitForPeers(ctx, "again"); err != nil {
		return err
	}
	if b.c.measures("large") {
		if err := b.readCold(ctx); err != nil {
			return err
		}
	}
	if b.c.measures("tree") {
		if err := b.walkCold(ctx); err != nil {
			return err
		}
	}
	b.memory("again")
	return b.skep(ctx, "again", "umount", b.back)
}

// coolPeers has the next reads of shards read the disk.
func (b *bench) coolPeers() (err error) {
	for i := range b.c.peers {
		err = errors.Join(err, cool(b.peerHome(i)))
	}
	return err
}

// readCold reads the large file of which nothing is here.
func (b *bench) readCold(ctx context.Context) error {
	if err := b.coolPeers(); err != nil {
		return err
	}
	var in cost
	stream, err := b.stream.around(ctx, func() (err error) {
		if err := touch(2*b.c.size + 512<<20); err != nil { // it comes to lie in the kernel's memory twice
			return err
		}
		in, err = b.timed("again", func() error { return readFile(filepath.Join(b.back, "large")) })
		return err
	})
	if err != nil {
		return err
	}
	b.r.line("a bare libp2p stream", "%.0f MB/s, mean of before and after", stream)
	b.r.rate("cold read of the large file", float64(b.c.size)/1e6/in.time, stream, "a bare stream")
	b.r.spent(in, b.c.size)
	if err := command(ctx, "cmp", filepath.Join(b.bare, "large"), filepath.Join(b.back, "large")); err != nil {
		return fmt.Errorf("the large file came back different: %w", err)
	}
	return nil
}

// walkCold compares the tree, of which nothing is here, with its source.
func (b *bench) walkCold(ctx context.Context) error {
	_, bytes, err := countTree(b.c.tree)
	if err != nil {
		return err
	}
	if err := b.coolPeers(); err != nil {
		return err
	}
	walk, err := b.timed("again", func() error {
		return command(ctx, "diff", "-r", filepath.Join(b.bare, "tree"), filepath.Join(b.back, "tree"))
	})
	if err != nil {
		return fmt.Errorf("the tree came back different: %w", err)
	}
	b.r.line("cold read of the tree", "%.1f s, %.0f MB/s", walk.time, float64(bytes)/1e6/walk.time)
	b.r.spent(walk, bytes)
	return nil
}
