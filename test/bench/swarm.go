package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skep/cmd/skep/control"
)

// procs are the processes of the swarm.
type procs struct {
	c    config
	all  []*exec.Cmd
	boot string
}

func (p *procs) path(elem ...string) string {
	return filepath.Join(append([]string{p.c.dir}, elem...)...)
}

// peer starts a storage peer.
func (p *procs) peer(i int) error {
	argv := []string{"peer", "--home", p.path(fmt.Sprint("peer", i)), "--offer", "20G", "--listen", "/ip4/127.0.0.1/tcp/0"}
	if p.boot != "" {
		argv = append(argv, "--bootstrap", p.boot)
	}
	cmd := exec.Command(p.c.skep, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.all = append(p.all, cmd)
	s := bufio.NewScanner(out)
	if !s.Scan() {
		return fmt.Errorf("peer %d did not start", i)
	}
	if p.boot == "" {
		p.boot = s.Text()
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return nil
}

// skep runs a command on a home.
func (p *procs) skep(ctx context.Context, home string, argv ...string) error {
	argv = append([]string{argv[0], "--home", p.path(home)}, argv[1:]...)
	out, err := exec.CommandContext(ctx, p.c.skep, argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("skep %s: %s", argv[0], strings.TrimSpace(string(out)))
	}
	return nil
}

func (p *procs) status(ctx context.Context, home string) (control.Status, error) {
	var s control.Status
	out, err := exec.CommandContext(ctx, p.c.skep, "status", "--json", "--home", p.path(home)).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	return s, err
}

// peak is the most memory that a process has had, in MiB.
func peak(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(v)[0])
			return kib >> 10
		}
	}
	return 0
}

// daemonOf finds the process that serves a home.
func (p *procs) daemonOf(home string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		b, _ := os.ReadFile(d)
		if strings.Contains(string(b), "daemon\x00--home\x00"+p.path(home)+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
			return pid
		}
	}
	return 0
}

func (p *procs) end() {
	for _, home := range []string{"home", "again"} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_ = p.skep(ctx, home, "down")
		cancel()
	}
	for _, c := range p.all {
		_ = c.Process.Signal(syscall.SIGTERM)
	}
	for _, c := range p.all {
		_ = c.Wait()
	}
}

// swarm measures a drive on a swarm of processes: in, out, and back.
func swarm(ctx context.Context, c config, r *report, stream float64) (err error) {
	p := &procs{c: c}
	defer p.end()
	for i := range c.peers {
		if err := p.peer(i); err != nil {
			return err
		}
	}
	if err := p.skep(ctx, "home", "init", "--words-file", p.path("words"), "--bootstrap", p.boot, "--offer", "0",
		"--listen", "/ip4/127.0.0.1/tcp/0"); err != nil {
		return err
	}
	drive, bare := p.path("drive"), p.path("bare")
	for _, d := range []string{drive, bare, p.path("back")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := p.skep(ctx, "home", "mount", drive); err != nil {
		return err
	}
	if err := p.waitForPeers(ctx, "home"); err != nil {
		return err
	}
	if err := large(ctx, p, r, drive, bare, stream); err != nil {
		return err
	}
	if err := many(ctx, p, r, drive, bare); err != nil {
		return err
	}
	if err := p.skep(ctx, "home", "umount", drive); err != nil {
		return err
	}
	return back(ctx, p, r, bare, stream)
}

func (p *procs) waitForPeers(ctx context.Context, home string) error {
	for {
		s, err := p.status(ctx, home)
		if err != nil {
			return err
		}
		if len(s.Peers) >= p.c.peers {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// large measures one large file.
func large(ctx context.Context, p *procs, r *report, drive, bare string, stream float64) error {
	r.section(fmt.Sprintf("One file of %d MiB, %d peers", p.c.size>>20, p.c.peers))
	mb := float64(p.c.size) / 1e6
	src := filepath.Join(bare, "large")
	onDisk, err := timed(func() error { return writeFile(src, p.c.size) })
	if err != nil {
		return err
	}
	in, err := timed(func() error { return writeFile(filepath.Join(drive, "large"), p.c.size) })
	if err != nil {
		return err
	}
	r.rate("write + fsync, bare directory", mb/onDisk, 0, "")
	r.rate("write + fsync, mount", mb/in, mb/onDisk, "the bare directory")
	bareRead, err := timed(func() error { return readFile(src) })
	if err != nil {
		return err
	}
	warm, err := timed(func() error { return readFile(filepath.Join(drive, "large")) })
	if err != nil {
		return err
	}
	r.rate("read warm, bare directory", mb/bareRead, 0, "")
	r.rate("read warm, mount", mb/warm, mb/bareRead, "the bare directory")
	out, err := timed(func() error { return p.skep(ctx, "home", "sync") })
	if err != nil {
		return err
	}
	s, err := p.status(ctx, "home")
	if err != nil {
		return err
	}
	expansion := float64(s.StoredBytes) / float64(p.c.size)
	r.line("stored at holders", "%.2f bytes for each byte", expansion)
	r.rate("sync to the swarm", mb/out, stream/expansion, "a bare stream divided by the expansion")
	r.line("peak memory", "daemon %d MiB, largest peer %d MiB", peak(p.daemonOf("home")), p.largestPeer())
	return nil
}

func (p *procs) largestPeer() (most int) {
	for _, c := range p.all {
		most = max(most, peak(c.Process.Pid))
	}
	return most
}

// many measures a tree of many files.
func many(ctx context.Context, p *procs, r *report, drive, bare string) error {
	files, bytes, err := countTree(p.c.tree)
	if err != nil {
		return err
	}
	r.section(fmt.Sprintf("A tree of %d files, %d MB", files, bytes/1000000))
	mb := float64(bytes) / 1e6
	onDisk, err := timed(func() error { return command(ctx, "cp", "-a", p.c.tree, filepath.Join(bare, "tree")) })
	if err != nil {
		return err
	}
	in, err := timed(func() error { return command(ctx, "cp", "-a", p.c.tree, filepath.Join(drive, "tree")) })
	if err != nil {
		return err
	}
	r.line("cp -a, bare directory", "%.0f files/s", float64(files)/onDisk)
	r.line("cp -a, mount", "%.0f files/s\t%.2f of the bare directory", float64(files)/in, onDisk/in)
	before, err := p.status(ctx, "home")
	if err != nil {
		return err
	}
	out, err := timed(func() error { return p.skep(ctx, "home", "sync") })
	if err != nil {
		return err
	}
	after, err := p.status(ctx, "home")
	if err != nil {
		return err
	}
	r.line("sync to the swarm", "%.1f s, %.0f MB/s", out, mb/out)
	if before.StoredBytes > 0 {
		r.line("stored at holders", "%.2f bytes for each byte (compressed)", float64(after.StoredBytes-before.StoredBytes)/float64(bytes))
	}
	r.line("peak memory", "daemon %d MiB, largest peer %d MiB", peak(p.daemonOf("home")), p.largestPeer())
	return nil
}

// back measures the way back on a bare machine.
func back(ctx context.Context, p *procs, r *report, bare string, stream float64) error {
	r.section("Brought back from words")
	if err := p.skep(ctx, "home", "down"); err != nil {
		return err
	}
	mb := float64(p.c.size) / 1e6
	took, err := timed(func() error {
		return p.skep(ctx, "again", "recover", "--words-file", p.path("words"), "--bootstrap", p.boot, "--offer", "0",
			"--listen", "/ip4/127.0.0.1/tcp/0")
	})
	if err != nil {
		return err
	}
	mounted, err := timed(func() error { return p.skep(ctx, "again", "mount", p.path("back")) })
	if err != nil {
		return err
	}
	r.line("recover, mount", "%.2f s, %.2f s", took, mounted)
	if err := p.waitForPeers(ctx, "again"); err != nil {
		return err
	}
	cold, err := timed(func() error { return readFile(filepath.Join(p.path("back"), "large")) })
	if err != nil {
		return err
	}
	r.rate("cold read of the large file", mb/cold, stream, "a bare stream")
	if err := command(ctx, "cmp", filepath.Join(bare, "large"), filepath.Join(p.path("back"), "large")); err != nil {
		return fmt.Errorf("the large file came back different: %w", err)
	}
	walk, err := timed(func() error {
		return command(ctx, "diff", "-r", filepath.Join(bare, "tree"), filepath.Join(p.path("back"), "tree"))
	})
	if err != nil {
		return fmt.Errorf("the tree came back different: %w", err)
	}
	r.line("cold read of the tree", "%.1f s", walk)
	r.line("peak memory", "daemon %d MiB, largest peer %d MiB", peak(p.daemonOf("again")), p.largestPeer())
	return p.skep(ctx, "again", "umount", p.path("back"))
}

func timed(fn func() error) (float64, error) {
	begin := time.Now()
	err := fn()
	return time.Since(begin).Seconds(), err
}

func command(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.300s", argv[0], err, out)
	}
	return nil
}

// writeFile writes random bytes that do not compress, and flushes them.
func writeFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	p := randomBytes(4 << 20)
	for off, n := int64(0), 0; off < size; off += int64(n) {
		for at := 0; at < len(p); at += 64 << 10 { // no two chunks are alike
			binary.LittleEndian.PutUint64(p[at:], uint64(off)+uint64(at))
		}
		if n, err = f.Write(p[:min(int64(len(p)), size-off)]); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if _, err := f.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func countTree(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += st.Size()
		return nil
	})
	return files, bytes, err
}
