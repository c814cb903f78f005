package posix

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These tests have several processes, each called by a letter, lock what lies in one
// folder. A line is a call of one of them and what it says; "waits" is said of a call
// that does not return, and "then" of what it says in the end. "signal" interrupts a
// call that waits, and "kill" ends a process.

// lockings are such scripts, by what they show.
var lockings = map[string]string{
	"whole files": `
		a open f f rdwr|creat 0644 => ok
		b open f f rdwr            => ok
		a flock f sh               => ok
		b flock f sh               => ok
		b flock f un               => ok
		a flock f ex               => ok
		b flock f sh|nb            => EAGAIN
		b flock f ex               => waits
		a dup f g                  => ok
		a close f                  => ok
		c open f f rdonly          => ok
		c flock f sh|nb            => EAGAIN
		a close g                  => ok
		b then                     => ok
		c flock f sh               => waits
		c signal
		c then                     => EINTR
		c flock f sh               => waits
		b flock f sh               => ok
		c then                     => ok
		b flock f ex|nb            => EAGAIN
		b flock f ex               => waits
		c kill
		b then                     => ok`,
	"folders": `
		a open d . rdonly|directory => ok
		b open d . rdonly|directory => ok
		a flock d ex                => ok
		b flock d ex|nb             => EAGAIN
		b flock d ex                => waits
		a kill
		b then                      => ok`,
	"parts, by process": `
		a open f f rdwr|creat 0644 => ok
		b open f f rdwr            => ok
		a setlk f w 0 10           => ok
		b setlk f r 0 5            => EAGAIN
		b getlk f r 5 100          => ok write 0 10
		b setlk f w 10 10          => ok
		a getlk f r 0 100          => ok write 10 10
		a getlk f w 0 10           => ok free
		a setlk f r 0 10           => ok
		b setlk f r 0 5            => ok
		a setlkw f w 0 10          => waits
		b setlkw f w 0 5           => EDEADLK
		b setlk f u 0 5            => ok
		a then                     => ok
		b setlkw f r 0 1           => waits
		b signal
		b then                     => EINTR
		b setlkw f r 0 1           => waits
		a open g f rdonly          => ok
		a setlk g w 50 1           => EBADF
		a close g                  => ok
		b then                     => ok
		a setlk f w 100 0          => ok
		b getlk f w 1000 1         => ok write 100 0
		b setlkw f w 1000 1        => waits
		a kill
		b then                     => ok`,
	"parts, by open file": `
		a open f f rdwr|creat 0644 => ok
		a open g f rdwr            => ok
		b open f f rdwr            => ok
		a ofdset f w 0 10          => ok
		a ofdset g w 5 5           => EAGAIN
		a ofdget g w 5 5           => ok write 0 10 of an open file
		b ofdset f r 0 1           => EAGAIN
		b setlk f r 0 1            => EAGAIN
		b getlk f r 0 1            => ok write 0 10 of an open file
		a open h f rdonly          => ok
		a close h                  => ok
		b ofdset f r 0 1           => EAGAIN
		a ofdset f r 0 10          => ok
		b ofdset f r 0 1           => ok
		a ofdset f w 0 10          => EAGAIN
		a ofdsetw f w 0 10         => waits
		a signal
		a then                     => EINTR
		a ofdsetw f w 0 10         => waits
		b ofdset f u 0 0           => ok
		a then                     => ok
		b ofdsetw f w 0 10         => waits
		a close f                  => ok
		b then                     => ok
		a ofdsetw g r 0 1          => waits
		b kill
		a then                     => ok`,
}

// TestLocks: locks of all three kinds hold between processes, and between open files;
// who waits for one can be interrupted, and gets it when its holder lets go of it, closes
// the file, or dies. The same holds on a local filesystem.
func TestLocks(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		for name, script := range lockings {
			t.Run(name, func(t *testing.T) {
				for _, where := range []string{d.root, t.TempDir()} {
					dir, err := os.MkdirTemp(where, "locks-")
					must(t, err)
					newLockers(t, dir).play(script)
				}
			})
		}
	})
	asUser(t)
}

// TestLocksEndWithTheMount: of a server that was killed, files stay open, and locked for
// who has them open; whoever opens them through the next one finds them free.
func TestLocksEndWithTheMount(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		before := newLockers(t, d.root)
		before.play(`
			a open f f rdwr|creat 0644 => ok
			b open f f rdwr            => ok
			a flock f ex               => ok
			a setlk f w 0 10           => ok
			a open g f rdwr            => ok
			a ofdset g w 20 10         => ok
			b flock f ex               => waits`)
		d.Kill()
		d.start()
		newLockers(t, d.root).play(`
			a open f f rdwr   => ok
			a flock f ex|nb   => ok
			a getlk f w 0 100 => ok free
			a setlk f w 0 10  => ok
			a ofdset f w 20 1 => ok`)
		before.play(`
			a flock f un => ok
			b then       => ok`)
	})
	asUser(t)
}

// lockers are processes that lock, by their letters.
type lockers struct {
	t   *testing.T
	dir string
	all map[string]*locker
}

// locker is a process that makes calls as it is told.
type locker struct {
	cmd    *exec.Cmd
	thread int // that makes its calls
	in     io.Writer
	out    *bufio.Scanner
	call   string // the last
}

func newLockers(t *testing.T, dir string) *lockers {
	return &lockers{t: t, dir: dir, all: map[string]*locker{}}
}

// get starts a process when it is first heard of.
func (ls *lockers) get(name string) *locker {
	ls.t.Helper()
	if l := ls.all[name]; l != nil {
		return l
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Dir, cmd.Stderr = append(os.Environ(), scriptEnv+"=1"), ls.dir, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	must(ls.t, err)
	out, err := cmd.StdoutPipe()
	must(ls.t, err)
	must(ls.t, cmd.Start())
	ls.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	l := &locker{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	ls.all[name] = l
	l.say(ls.t, "thread")
	_, err = fmt.Sscanf(l.answer(ls.t), "ok %d", &l.thread)
	must(ls.t, err)
	return l
}

func (l *locker) say(t *testing.T, call string) {
	t.Helper()
	l.call = call
	_, err := fmt.Fprintln(l.in, call)
	must(t, err)
}

// answer is what the last call says.
func (l *locker) answer(t *testing.T) string {
	t.Helper()
	if !l.out.Scan() {
		t.Fatalf("%s: the process ended: %v", l.call, l.out.Err())
	}
	return strings.TrimPrefix(l.out.Text(), l.call+": ")
}

// play has the processes do what a script says.
func (ls *lockers) play(script string) {
	ls.t.Helper()
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			ls.line(line)
		}
	}
}

func (ls *lockers) line(line string) {
	ls.t.Helper()
	left, want, _ := strings.Cut(line, "=>")
	name, call, _ := strings.Cut(strings.TrimSpace(left), " ")
	l := ls.get(name)
	waiting := ls.waiting()
	switch call {
	case "kill":
		must(ls.t, l.cmd.Process.Kill())
		_ = l.cmd.Wait()
		return
	case "signal":
		must(ls.t, unix.Tgkill(l.cmd.Process.Pid, l.thread, unix.SIGUSR1))
		return
	case "then":
	default:
		l.say(ls.t, call)
	}
	if want = strings.TrimSpace(want); want == "waits" {
		ls.until(line, func() bool { return ls.waiting() == waiting+1 })
	} else if got := l.answer(ls.t); got != want {
		ls.t.Fatalf("%s\n%s: %s, not %s", ls.dir, left, got, want)
	}
}

func (ls *lockers) until(what string, is func() bool) {
	ls.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			ls.t.Fatalf("%s: never seen", what)
		}
	}
}

// waiting is how many calls wait for a lock of a file in the folder, or of itself.
func (ls *lockers) waiting() (n int) {
	ls.t.Helper()
	b, err := os.ReadFile("/proc/locks")
	must(ls.t, err)
	for _, path := range []string{ls.dir, filepath.Join(ls.dir, "f")} {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue
		}
		file := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, " -> ") && strings.Contains(line, file) {
				n++
			}
		}
	}
	return n
}

// lock is a call of fcntl(2) on a range, "r", "w" or "u" of a length from an offset.
func (i *interpreter) lock(cmd int) func(fd int, a []string) error {
	kinds := map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}
	return func(fd int, a []string) error {
		l := unix.Flock_t{Type: kinds[a[0]], Start: int64(number(a[1])), Len: int64(number(a[2]))}
		err := unix.FcntlFlock(uintptr(fd), cmd, &l)
		if err == nil && (cmd == unix.F_GETLK || cmd == unix.F_OFD_GETLK) {
			i.say = tellLock(&l)
		}
		return err
	}
}

// tellLock says which lock is in the way.
func tellLock(l *unix.Flock_t) string {
	if l.Type == unix.F_UNLCK {
		return "free"
	}
	s := fmt.Sprintf("%s %d %d", map[int16]string{unix.F_RDLCK: "read", unix.F_WRLCK: "write"}[l.Type], l.Start, l.Len)
	if l.Pid == -1 {
		s += " of an open file"
	}
	return s
}

// dup gives an open file a second descriptor.
func (i *interpreter) dup(f int, a []string) (err error) {
	i.files[a[0]], err = unix.Dup(f)
	return err
}

// thread tells which thread makes the calls, and has SIGUSR1 interrupt them. What
// package signal sets would make the kernel begin a call again.
func (i *interpreter) thread([]string) {
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	const restart = 0x10000000
	var action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	call := func(set, get unsafe.Pointer) {
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR1), uintptr(set), uintptr(get), 8, 0, 0); errno != 0 {
			panic(errno)
		}
	}
	call(nil, unsafe.Pointer(&action))
	action.flags &^= restart
	call(unsafe.Pointer(&action), nil)
	i.say = fmt.Sprint(unix.Gettid())
}
