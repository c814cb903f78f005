package loop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/fs/loop"
	"skep/test/memfs"
)

// The test binary is also the program that asks, and those that keep processors
// busy, if this variable says so.
const roleEnv = "SKEP_TEST_LOOP_ROLE"

func TestMain(m *testing.M) {
	switch role, dirs, _ := strings.Cut(os.Getenv(roleEnv), " "); role {
	case "":
		os.Exit(m.Run())
	case "busy":
		for n := uint64(1); n > 0; n += 2 { // for some centuries
		}
	case "exec":
		execWithOpen(dirs)
	case "ask":
		if err := json.NewEncoder(os.Stdout).Encode(askInTurn(strings.Fields(dirs))); err != nil {
			panic(err)
		}
	}
}

// execWithOpen makes some requests, the last of them by the call to execve, which
// closes a file that was written to.
func execWithOpen(args string) {
	runtime.LockOSThread()
	dir, number, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	f, err := os.Create(filepath.Join(dir, "written"))
	if err == nil {
		_, err = f.WriteString("x")
	}
	for range n {
		err = errors.Join(err, forceStat(dir))
	}
	panic(errors.Join(err, unix.Exec("/bin/true", []string{"true"}, nil)))
}

// TestExecWithOpenFiles: a program that is replaced by another one closes its files
// meanwhile, and the kernel lets nobody look at the process until that is done, which
// may not keep the loop from answering.
func TestExecWithOpenFiles(t *testing.T) {
	dir := serveAt(t, (*loop.Loop).Serve)
	for n := range 2 * loop.Newcomer {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := play(ctx, t, fmt.Sprint("exec ", dir, " ", n)).CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("after %d requests: %v\n%s", n, err, out)
		}
	}
}

const (
	turns    = 10
	turnTime = 200 * time.Millisecond
)

// asked is how often something was done in all turns of each directory.
type asked map[string][]int

// askInTurn asks for attributes, and makes and removes files, now in the one
// directory and now in the other.
func askInTurn(dirs []string) asked {
	n := asked{}
	for what, ask := range map[string]func(dir string) error{
		"stat": forceStat,
		"make": func(dir string) error {
			name := filepath.Join(dir, "f")
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return err
			}
			return os.Remove(name)
		},
	} {
		n[what] = make([]int, len(dirs))
		for range turns {
			for i, dir := range dirs {
				for begin := time.Now(); time.Since(begin) < turnTime; n[what][i]++ {
					if err := ask(dir); err != nil {
						panic(err)
					}
				}
			}
		}
	}
	return n
}

// forceStat asks for the attributes of dir, which the kernel is not to know.
func forceStat(dir string) error {
	var st unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
}

// serveAt serves an empty filesystem.
func serveAt(b testing.TB, serve func(*loop.Loop) error) (dir string) {
	dir = b.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("memfs", dir, "fuse.memfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd))
	}
	if err != nil {
		b.Skipf("no mount: %v", err)
	}
	var served sync.WaitGroup
	b.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		served.Wait()
	})
	l, err := loop.New(fd, memfs.New(), loop.Options{MaxIO: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	served.Go(func() {
		if err := serve(l); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// play runs the test binary in a role.
func play(ctx context.Context, b testing.TB, role string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// BenchmarkFollow compares workers that follow their callers with some that do
// not, turn by turn, while so many other programs keep processors busy. It prints
// how often the one did something for each time that the other did.
func BenchmarkFollow(b *testing.B) {
	near, far := serveAt(b, (*loop.Loop).Serve), serveAt(b, (*loop.Loop).ServeFar)
	for _, busy := range []int{0, 2, 6} {
		b.Run(fmt.Sprint("busy=", busy), func(b *testing.B) {
			for range busy {
				cmd := play(b.Context(), b, "busy")
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				}()
			}
			sum := asked{"stat": make([]int, 2), "make": make([]int, 2)}
			for b.Loop() {
				out, err := play(b.Context(), b, "ask "+near+" "+far).Output()
				n := asked{}
				if err == nil {
					err = json.NewDecoder(bytes.NewReader(out)).Decode(&n)
				}
				if err != nil {
					b.Fatal(err)
				}
				for what := range sum {
					sum[what][0] += n[what][0]
					sum[what][1] += n[what][1]
				}
			}
			for what, n := range sum {
				b.ReportMetric(float64(n[0])/float64(n[1]), what+"/far")
			}
			b.ReportMetric(float64(sum["stat"][0])/float64(b.N*turns)/turnTime.Seconds(), "stat/s")
		})
	}
}
