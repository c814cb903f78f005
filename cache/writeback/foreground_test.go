package writeback_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/block"
	"skep/chunker/link"
	"skep/test/memswarm"
)

// programEnv makes the test binary a program that uses a drive: it asks on
// descriptor 3, waits for the answer on descriptor 4, and again, until it is
// killed. Like the kernel's requests its questions wake a thread of the daemon.
const programEnv = "SKEP_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) == "" {
		// What compresses makes channels when it is used first, which is not to be in
		// a bubble.
		if _, err := block.NewSealer(convergence).Seal(link.Raw, make([]byte, 1<<16), nil); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	b := []byte{0}
	for {
		if _, err := unix.Write(3, b); err != nil {
			return
		}
		if n, err := unix.Read(4, b); n == 0 || err != nil {
			return
		}
	}
}

// program is a process that has a drive do something again and again.
type program struct {
	cmd      *exec.Cmd
	ask, ans [2]int
}

func startProgram(tb testing.TB) *program {
	p := &program{cmd: exec.Command(must(os.Executable()))}
	p.cmd.Env = append(os.Environ(), programEnv+"=1", "GOMAXPROCS=1")
	for _, pipe := range []*[2]int{&p.ask, &p.ans} {
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			tb.Fatal(err)
		}
	}
	theirs := []*os.File{os.NewFile(uintptr(p.ask[1]), "ask"), os.NewFile(uintptr(p.ans[0]), "answer")}
	p.cmd.ExtraFiles = theirs
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	for _, f := range theirs {
		_ = f.Close()
	}
	tb.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = unix.Close(p.ask[0])
		_ = unix.Close(p.ans[1])
	})
	return p
}

// serve does what the program asks for until done says so, and returns how often
// it did in a second, and how long the longest took, with the way there and back.
func (p *program) serve(do func(i int), done func() bool) (rate float64, longest time.Duration) {
	b := []byte{0}
	begin := time.Now()
	last, n := begin, 0
	for !done() {
		if _, err := unix.Read(p.ask[0], b); err != nil {
			panic(err)
		}
		do(n)
		if _, err := unix.Write(p.ans[1], b); err != nil {
			panic(err)
		}
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		n++
	}
	return float64(n) / time.Since(begin).Seconds(), longest
}

// BenchmarkForeground measures what a program gets of a drive while that is being
// uploaded, as a share of what it gets otherwise: by itself, and while somebody
// waits for it.
func BenchmarkForeground(b *testing.B) {
	for _, kind := range []string{"create", "fsync", "read"} {
		b.Run(kind, func(b *testing.B) { foreground(b, kind, false) })
		b.Run(kind+" beside sync", func(b *testing.B) { foreground(b, kind, true) })
	}
}

func foreground(b *testing.B, kind string, waited bool) {
	const upload = 128 << 20
	for range b.N {
		d := newDevice(b, memswarm.New(9, 4, 7))
		p := startProgram(b)
		do := d.program(kind)
		const slice = time.Second
		aloneUntil := time.Now().Add(slice)
		alone, _ := p.serve(do, func() bool { return time.Now().After(aloneUntil) })
		d.put("big", nil)
		for at := int64(0); at < upload; at += 16 << 20 {
			d.edit("big", random(uint64(at>>24), 16<<20), at)
		}
		if waited {
			go func() { _ = d.engine.Sync(ctx) }()
		} else { // a commit begins when the drive is opened again
			d.close()
			d.timing = writeback.Timing{Quiet: time.Millisecond, Most: time.Millisecond, Retry: time.Millisecond}
			d.open(nil)
			do = d.program(kind)
		}
		begin := time.Now()
		beside, longest := p.serve(do, func() bool { return d.engine.Progress().Number > 0 })
		took := time.Since(begin)
		d.stop()
		againUntil := time.Now().Add(slice)
		again, _ := p.serve(do, func() bool { return time.Now().After(againUntil) })
		alone = (alone + again) / 2
		b.ReportMetric(alone, "alone/s")
		b.ReportMetric(100*beside/alone, "%beside")
		b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
		b.ReportMetric(upload/1e6/took.Seconds(), "upload-MB/s")
		b.ReportMetric(0, "ns/op")
	}
}

// program returns one step of a program of some kind.
func (d *device) program(kind string) func(i int) {
	d.t.Helper()
	four := random(7, 4096)
	d.put("used", four)
	a, err := d.tree.Lookup(ctx, tree.Root, "used")
	if err != nil {
		d.t.Fatal(err)
	}
	f, err := d.tree.Open(ctx, a.Ino, os.O_RDWR)
	if err != nil {
		d.t.Fatal(err)
	}
	for at := int64(0); at < 4<<20; at += 4096 {
		_, _ = f.WriteAt(ctx, four, at, false)
	}
	d.t.Cleanup(f.Release)
	check := func(_ int, err error) {
		if err != nil {
			panic(err)
		}
	}
	switch kind {
	case "create":
		return func(i int) {
			g, _, err := d.tree.Create(ctx, tree.Root, "n"+strconv.Itoa(i)+fmt.Sprint(time.Now().UnixNano()), 0o600, os.O_WRONLY, tree.Owner{})
			check(0, err)
			check(g.WriteAt(ctx, four, 0, false))
			g.Release()
		}
	case "fsync":
		return func(i int) {
			check(f.WriteAt(ctx, four, int64(i%1000)*4096, false))
			check(0, f.Sync(ctx, true))
		}
	}
	buf := make([]byte, 4096)
	return func(i int) { check(f.ReadAt(ctx, buf, int64(i%1000)*4096)) }
}
