package tree

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What one operation costs the daemon, without the kernel's way to it and back.
// Beside time and allocations each tells, as calls/op, how often it read from
// or wrote to a file, and as cpu-ns/op the processor's time, which tells more on
// a machine that has other things to do; what runs in the background is in both.

// rwCalls is how many calls of read and write, in all their forms, this process
// has made.
func rwCalls(b *testing.B) (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if name == "syscr" || name == "syscw" {
			v, _ := strconv.ParseInt(value, 10, 64)
			n += v
		}
	}
	return n
}

// cpuTime is what this process has taken of the processor.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs op again and again and reports what it costs.
func measure(b *testing.B, op func(i int)) {
	b.Helper()
	b.ReportAllocs()
	before, cpu := rwCalls(b), cpuTime()
	b.ResetTimer()
	for i := range b.N {
		op(i)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(rwCalls(b)-before)/float64(b.N), "calls/op")
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (d *device) mkdir(dir Ino, name string) Ino {
	d.t.Helper()
	a, err := d.Mkdir(ctx, dir, name, 0o755, Owner{})
	must(d.t, err)
	return a.Ino
}

// names are file names made beforehand, so that making them is not measured.
func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("file%07d", i)
	}
	return out
}

// filled is a directory with n small files.
func (d *device) filled(n int) (Ino, []string) {
	dir, list := d.mkdir(Root, "filled"), names(n)
	for _, name := range list {
		d.write(dir, name, []byte("small"))
	}
	return dir, list
}

func BenchmarkLookup(b *testing.B) {
	d := newDevice(b, Options{})
	dir, list := d.filled(1000)
	measure(b, func(i int) {
		_, err := d.Lookup(ctx, dir, list[i%len(list)])
		must(b, err)
	})
}

func BenchmarkLookupNothing(b *testing.B) {
	d := newDevice(b, Options{})
	dir, _ := d.filled(1000)
	measure(b, func(int) {
		if _, err := d.Lookup(ctx, dir, "nothing"); err != ErrNotFound {
			b.Fatal(err)
		}
	})
}

func BenchmarkAttr(b *testing.B) {
	for _, size := range []int{100, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			d := newDevice(b, Options{})
			ino := d.write(Root, "file", pattern(size, 1))
			measure(b, func(int) {
				_, err := d.Attr(ctx, ino)
				must(b, err)
			})
		})
	}
}

func BenchmarkCreateWriteRelease(b *testing.B) {
	for _, passed := range []bool{false, true} {
		b.Run(map[bool]string{false: "through", true: "passed"}[passed], func(b *testing.B) {
			d := newDevice(b, Options{Passthrough: passed})
			dir, list, content := d.mkdir(Root, "dir"), names(b.N), pattern(4096, 1)
			measure(b, func(i int) {
				f, _, err := d.Create(ctx, dir, list[i], 0o644, os.O_WRONLY, Owner{})
				must(b, err)
				if fd, ok := f.Passthrough(); ok {
					_, err = unix.Pwrite(fd, content, 0)
				} else {
					_, err = f.WriteAt(ctx, content, 0, true)
				}
				must(b, err)
				f.Release()
			})
		})
	}
}

func BenchmarkMkdir(b *testing.B) {
	d := newDevice(b, Options{})
	list := names(b.N)
	measure(b, func(i int) { d.mkdir(Root, list[i]) })
}

func BenchmarkRename(b *testing.B) {
	d := newDevice(b, Options{})
	dir, list := d.filled(1000)
	other := d.mkdir(Root, "other")
	from, to := dir, other
	measure(b, func(i int) {
		if i > 0 && i%len(list) == 0 {
			from, to = to, from
		}
		must(b, d.Rename(ctx, from, list[i%len(list)], to, list[i%len(list)], 0))
	})
}

func BenchmarkRenameOver(b *testing.B) {
	for _, size := range []int{100, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			d := newDevice(b, Options{})
			dir, list, content := d.mkdir(Root, "dir"), names(b.N), pattern(size, 1)
			for _, name := range list {
				d.write(dir, name, content)
			}
			measure(b, func(i int) { must(b, d.Rename(ctx, dir, list[i], dir, "target", 0)) })
		})
	}
}

func BenchmarkUnlink(b *testing.B) {
	d := newDevice(b, Options{})
	dir, list := d.filled(b.N)
	measure(b, func(i int) {
		a, err := d.Lookup(ctx, dir, list[i])
		must(b, err)
		must(b, d.Unlink(ctx, dir, list[i]))
		d.Forget(a.Ino)
	})
}

func BenchmarkReadDir10000(b *testing.B) {
	d := newDevice(b, Options{})
	dir, list := d.filled(10_000)
	measure(b, func(int) {
		n := 0
		must(b, d.ReadDir(ctx, dir, 0, func(DirEntry) bool { n++; return true }))
		if n != len(list) {
			b.Fatal(n)
		}
	})
}

func BenchmarkOpenRead4K(b *testing.B) {
	for _, size := range []int{4096, 100_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			d := newDevice(b, Options{})
			ino, buf := d.write(Root, "file", pattern(size, 1)), make([]byte, 4096)
			measure(b, func(int) {
				f, err := d.Open(ctx, ino, os.O_RDONLY)
				must(b, err)
				_, err = f.ReadAt(ctx, buf, 0)
				must(b, err)
				f.Release()
			})
		})
	}
}

func (d *device) openLarge() *File {
	ino := d.write(Root, "large", pattern(4<<20, 1))
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(d.t, err)
	return f
}

func BenchmarkWrite4K(b *testing.B) {
	d := newDevice(b, Options{})
	f, buf := d.openLarge(), pattern(4096, 2)
	measure(b, func(i int) {
		_, err := f.WriteAt(ctx, buf, int64(i*37%1024)<<12, true)
		must(b, err)
	})
	f.Release()
}

func BenchmarkWrite4KSync(b *testing.B) {
	d := newDevice(b, Options{})
	f, buf := d.openLarge(), pattern(4096, 2)
	measure(b, func(i int) {
		_, err := f.WriteAt(ctx, buf, int64(i*37%1024)<<12, true)
		must(b, err)
		must(b, f.Sync(ctx, true))
	})
	f.Release()
}

func BenchmarkSmallWriteSync(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(strconv.Itoa(writers), func(b *testing.B) {
			d := newDevice(b, Options{})
			b.SetParallelism((writers + 1) / 2)
			buf := pattern(512, 2)
			b.RunParallel(func(pb *testing.PB) {
				f, _, err := d.Tree.Create(ctx, Root, fmt.Sprintf("f%p", pb), 0o644, os.O_RDWR, Owner{})
				must(b, err)
				for pb.Next() {
					_, err := f.WriteAt(ctx, buf, 0, false)
					must(b, err)
					must(b, f.Sync(ctx, true))
				}
				f.Release()
			})
		})
	}
}

func BenchmarkSetAttr(b *testing.B) {
	d := newDevice(b, Options{})
	ino := d.write(Root, "file", []byte("small"))
	mode := uint32(0o600)
	measure(b, func(int) {
		_, err := d.SetAttr(ctx, ino, SetAttr{Mode: &mode})
		must(b, err)
	})
}

func BenchmarkXattr(b *testing.B) {
	d := newDevice(b, Options{})
	ino, value := d.write(Root, "file", []byte("small")), []byte("value")
	b.Run("set", func(b *testing.B) {
		measure(b, func(int) { must(b, d.SetXattr(ctx, ino, "user.name", value, 0)) })
	})
	b.Run("get", func(b *testing.B) {
		measure(b, func(int) {
			_, err := d.GetXattr(ctx, ino, "user.name")
			must(b, err)
		})
	})
	b.Run("none", func(b *testing.B) {
		measure(b, func(int) {
			if _, err := d.GetXattr(ctx, ino, "security.capability"); err != ErrNoAttr {
				b.Fatal(err)
			}
		})
	})
}
