package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/harness"
)

// TestRestless commits files that are written all the time, loses the device, and
// looks at what another one brings back: each is as a power cut would have left it,
// and has all that was acknowledged before the sync. To root's mount the new ones are
// written by the kernel alone.
func TestRestless(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6, DeadAfter: 30 * time.Second})
	device := swarm.NewDevice(t)
	device.Mount(t)
	files := []restless{
		&database{name: "wal.db", mode: "wal"},
		&database{name: "journal.db", mode: "delete"},
		&database{name: "truncated.db", mode: "truncate"},
		&growing{name: "log", flags: os.O_APPEND},
		&growing{name: "new log", flags: os.O_TRUNC},
		&image{name: "image", blocks: 512},
		&image{name: "mapped", blocks: 512, mapped: true},
		&image{name: "new image", blocks: 8192, isNew: true},
	}
	writing, stop := context.WithCancel(harness.Context(t))
	defer stop()
	ended := make(chan struct{}, len(files))
	for _, f := range files {
		f.prepare(t, device.Mnt)
		go func() { f.write(writing, device.Mnt); ended <- struct{}{} }()
	}
	hot := startHot(t, device.Path("hot"))
	acknowledged := func() (out []int64) {
		for _, f := range files {
			out = append(out, f.acknowledged())
		}
		return out
	}
	grown := func(from []int64, by int64) {
		t.Helper()
		harness.Until(t, 60*time.Second, "all files grow", func() (bool, string) {
			now := acknowledged()
			for i := range now {
				if now[i] < from[i]+by {
					return false, fmt.Sprint(now)
				}
			}
			return true, ""
		})
	}
	grown(make([]int64, len(files)), 20)

	device.Skep(t, "sync", "--timeout", "80s").OK(t)
	grown(acknowledged(), 20)
	hot.stop(t)
	before := acknowledged()
	device.Sync(t)
	grown(before, 5)
	device.Destroy(t)
	stop()
	for range files {
		<-ended
	}

	back := swarm.Recover(t, device.Words)
	back.Mount(t)
	for i, f := range files {
		t.Run(f.String(), func(t *testing.T) { f.check(t, back.Mnt, before[i]) })
	}
	got, err := os.ReadFile(back.Path("hot"))
	must(t, err)
	if !bytes.Equal(got, hot.content) {
		t.Error("the file that came to rest is not as it was then")
	}
}

// restless is what a program keeps in files that it writes all the time.
type restless interface {
	fmt.Stringer
	// prepare makes the files in a directory.
	prepare(t *testing.T, dir string)
	// write goes on until ctx ends, or until that fails.
	write(ctx context.Context, dir string)
	// acknowledged is how far write has come for good.
	acknowledged() int64
	// check looks at what was recovered, which is to have that much at least.
	check(t *testing.T, dir string, least int64)
}

// database is one that sqlite writes, each row a transaction.
type database struct {
	name, mode string
	rows       atomic.Int64
}

func (d *database) String() string      { return d.name }
func (d *database) acknowledged() int64 { return d.rows.Load() }

func (d *database) prepare(t *testing.T, _ string) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("needs sqlite3")
	}
}

func (d *database) write(ctx context.Context, dir string) {
	cmd := exec.CommandContext(ctx, "sqlite3", filepath.Join(dir, d.name))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	fmt.Fprintf(in, "pragma journal_mode=%s; pragma wal_autocheckpoint=20;\ncreate table t(n integer primary key, filler);\n", d.mode)
	answers := bufio.NewScanner(out)
	for n := 1; ; n++ {
		fmt.Fprintf(in, "insert into t values(%d, hex(randomblob(2000))); select 'row', max(n) from t;\n", n)
		want := fmt.Sprintf("row|%d", n)
		for answers.Scan() && answers.Text() != want {
		}
		if answers.Text() != want {
			return
		}
		d.rows.Store(int64(n))
	}
}

func (d *database) check(t *testing.T, dir string, least int64) {
	out := harness.Run(t, exec.Command("sqlite3", filepath.Join(dir, d.name),
		"pragma integrity_check; select count(*) = max(n), count(*) from t;")).OK(t)
	var rows int64
	if _, err := fmt.Sscanf(out, "ok\n1|%d", &rows); err != nil || rows < least {
		t.Errorf("sqlite says %q; %d rows were committed", out, least)
	}
}

// growing is a log, to which lines are appended.
type growing struct {
	name  string
	flags int // that it is opened with
	lines atomic.Int64
}

func (g *growing) String() string             { return g.name }
func (g *growing) acknowledged() int64        { return g.lines.Load() }
func (g *growing) prepare(*testing.T, string) {}

func logLine(n int64) string { return fmt.Sprintf("line %d %x\n", n, n*2654435761) }

func (g *growing) write(ctx context.Context, dir string) {
	f, err := os.OpenFile(filepath.Join(dir, g.name), os.O_CREATE|os.O_WRONLY|g.flags, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for n := int64(1); ; n++ {
		if _, err := io.WriteString(f, logLine(n)); err != nil {
			return
		}
		g.lines.Store(n)
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

func (g *growing) check(t *testing.T, dir string, least int64) {
	b, err := os.ReadFile(filepath.Join(dir, g.name))
	must(t, err)
	var n int64
	for len(b) > 0 {
		line := []byte(logLine(n + 1))
		if !bytes.HasPrefix(b, line) {
			t.Fatalf("after %d lines comes %q", n, b[:min(len(b), 40)])
		}
		b = b[len(line):]
		n++
	}
	if n < least {
		t.Errorf("%d lines of %d", n, least)
	}
}

// image is one of a disk, whose blocks are written in place: step n writes block
// n, flushes, and then says in the last block, which a copy comes to last, that n is
// there. A copy that is not as of one moment breaks that order, unless flushes wait.
type image struct {
	name   string
	blocks int64
	mapped bool
	isNew  bool // who makes it writes it
	steps  atomic.Int64
}

const imageBlock = 4096

func (i *image) String() string      { return i.name }
func (i *image) acknowledged() int64 { return i.steps.Load() }

// imageBlockOf is a block that says n, and would not if it were torn.
func imageBlockOf(n int64) []byte {
	b := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(n)), imageBlock/8)
	binary.LittleEndian.PutUint32(b[imageBlock-8:], crc32.ChecksumIEEE(b[:imageBlock-8]))
	return b
}

func (i *image) slot(n int64) int64 { return n % (i.blocks - 1) }

// prepare makes the image as a tool would that ends then; what writes it later
// opens it in place.
func (i *image) prepare(t *testing.T, dir string) {
	if !i.isNew {
		must(t, os.WriteFile(filepath.Join(dir, i.name), i.empty(), 0o600))
	}
}

func (i *image) empty() []byte { return bytes.Repeat(imageBlockOf(0), int(i.blocks)) }

// open opens the image in place, or makes it.
func (i *image) open(dir string) (*os.File, error) {
	if !i.isNew {
		return os.OpenFile(filepath.Join(dir, i.name), os.O_RDWR, 0)
	}
	f, err := os.Create(filepath.Join(dir, i.name))
	if err == nil {
		_, err = f.Write(i.empty())
	}
	return f, err
}

func (i *image) write(ctx context.Context, dir string) {
	f, err := i.open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	put := func(block, n int64) error {
		if _, err := f.WriteAt(imageBlockOf(n), block*imageBlock); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	}
	if i.mapped {
		m, err := unix.Mmap(int(f.Fd()), 0, int(i.blocks)*imageBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return
		}
		defer func() { _ = unix.Munmap(m) }()
		put = func(block, n int64) error {
			at := m[block*imageBlock : (block+1)*imageBlock]
			copy(at, imageBlockOf(n))
			return unix.Msync(at, unix.MS_SYNC)
		}
	}
	for n := int64(1); ; n++ {
		if put(i.slot(n), n) != nil || put(i.blocks-1, n) != nil {
			return
		}
		i.steps.Store(n)
		select {
		case <-ctx.Done():
			return
		default:
		}
	}
}

func (i *image) check(t *testing.T, dir string, least int64) {
	b, err := os.ReadFile(filepath.Join(dir, i.name))
	must(t, err)
	if int64(len(b)) != imageBlock*i.blocks {
		t.Fatalf("%d bytes", len(b))
	}
	newest := int64(binary.LittleEndian.Uint64(b[(i.blocks-1)*imageBlock:]))
	if newest < least {
		t.Errorf("the image is of step %d, %d was flushed", newest, least)
	}
	for n := max(1, newest-i.blocks+2); n <= newest; n++ {
		at := b[i.slot(n)*imageBlock:][:imageBlock]
		// The next step may be writing its block.
		if i.slot(n) != i.slot(newest+1) && !bytes.Equal(at, imageBlockOf(n)) {
			t.Errorf("the block of step %d is missing or torn in an image of step %d: it says %d", n, newest, binary.LittleEndian.Uint64(at))
		}
	}
}

// hot is a file that is created and then overwritten without end, by the kernel
// alone where it may.
type hot struct {
	content []byte
	cancel  chan struct{}
	done    chan error
}

// hotSize is so large that it cannot be read between two writes.
const hotSize = 48 << 20

func startHot(t *testing.T, path string) *hot {
	h := &hot{content: make([]byte, hotSize), cancel: make(chan struct{}), done: make(chan error, 1)}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	must(t, err)
	_, err = f.WriteAt(h.content, 0)
	must(t, err)
	go func() {
		defer f.Close()
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for n := uint64(1); ; n++ {
			at := n * 7919 * 4096 % hotSize
			binary.LittleEndian.PutUint64(h.content[at:], n)
			if _, err := f.WriteAt(h.content[at:at+8], int64(at)); err != nil {
				h.done <- err
				return
			}
			select {
			case <-h.cancel:
				h.done <- nil
				return
			case <-pace.C:
			}
		}
	}()
	return h
}

func (h *hot) stop(t *testing.T) {
	t.Helper()
	close(h.cancel)
	must(t, <-h.done)
}
