package mount

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lookTime is how long it is looked for who uses a mount. Linux shows nothing of a
// process that is being replaced by another program, and keeps who looks waiting,
// which is for good where that process hangs.
const lookTime = 5 * time.Second

// looksAtOnce is how many processes are looked at at the same time.
const looksAtOnce = 64

// whoUses says who keeps the mount at dir busy.
func whoUses(dir string) *BusyError {
	e := &BusyError{Dir: dir}
	for _, d := range below(dir) {
		e.Uses = append(e.Uses, Use{What: "a mount at " + d})
	}
	uses, hidden := users("/proc", dir, time.After(lookTime))
	e.Uses = append(e.Uses, uses...)
	e.Hidden = hidden
	return e
}

// users finds the processes that use files at or below dir, once each, until enough
// is ready; hidden says that there may be more. It only reads the names that the
// kernel shows; no file below dir is touched.
func users(proc, dir string, enough <-chan time.Time) (uses []Use, hidden bool) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, true
	}
	type found struct {
		Use
		denied bool
	}
	pids, all := make(chan int, len(entries)), make(chan found, len(entries))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids <- pid
		}
	}
	close(pids)
	looks := len(pids)
	for range min(looks, looksAtOnce) {
		go func() {
			for pid := range pids {
				p := process{filepath.Join(proc, strconv.Itoa(pid)), dir}
				what, denied := p.use()
				all <- found{Use{PID: pid, Name: p.name(), What: what}, denied}
			}
		}()
	}
collect:
	for range looks {
		select {
		case f := <-all:
			hidden = hidden || f.denied
			if f.What != "" {
				uses = append(uses, f.Use)
			}
		case <-enough:
			hidden = true
			break collect
		}
	}
	slices.SortFunc(uses, func(a, b Use) int { return cmp.Compare(a.PID, b.PID) })
	return uses, hidden
}

// LetGo closes what this process was started with that lies in the mount at dir, which it
// would keep busy; its standard streams stay. What stays open, Unmount names.
func LetGo(dir string) {
	dir, err := Locate("unmount", dir)
	if err != nil {
		return
	}
	const fds = "/proc/self/fd"
	entries, _ := os.ReadDir(fds)
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if target, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && fd > 2 && within(target, dir) {
			_ = unix.Close(fd)
		}
	}
}

// process is a process as /proc shows it, seen from one mount.
type process struct {
	path string // such as /proc/1
	dir  string // the mount
}

func (p process) name() string {
	b, err := os.ReadFile(filepath.Join(p.path, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}

// use tells how the process uses the mount; denied says that we may not know.
func (p process) use() (what string, denied bool) {
	for _, l := range []struct{ link, kind string }{
		{"cwd", "working directory"}, {"root", "root directory"}, {"exe", "runs"},
	} {
		target, err := os.Readlink(filepath.Join(p.path, l.link))
		if os.IsPermission(err) {
			return "", true
		}
		if err == nil && within(target, p.dir) {
			return l.kind + " " + target, false
		}
	}
	if what := p.open(); what != "" {
		return what, false
	}
	return p.mapped(), false
}

// open finds an open file of the mount.
func (p process) open() string {
	fds := filepath.Join(p.path, "fd")
	entries, err := os.ReadDir(fds)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(fds, e.Name()))
		if err == nil && within(target, p.dir) {
			return "has open " + target
		}
	}
	return ""
}

// mapped finds a mapped file of the mount.
func (p process) mapped() string {
	b, err := os.ReadFile(filepath.Join(p.path, "maps"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if i := strings.IndexByte(line, '/'); i >= 0 {
			if file := strings.TrimSpace(line[i:]); within(unescape(file), p.dir) {
				return "has mapped " + file
			}
		}
	}
	return ""
}
