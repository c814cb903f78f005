package mount

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mark is what tells a mount, and the process that serves it, from all others, for who
// comes after that process.
type Mark struct {
	Dir     string // where it was mounted
	Dev     string // major:minor of the filesystem
	PID     int
	Started uint64 // when the process was, in ticks since the system was
	Boot    string // of the system
}

// EndKilled ends the connection of a mount if the process that served it was killed and
// cannot end: it may have been telling the kernel that a file changed, and the kernel waits
// for who has pages of that file locked, who waits for an answer of that process. It
// reports whether that was so. All that is left of the mount is a dead one.
func (m Mark) EndKilled() (bool, error) {
	if !m.isKilled() {
		return false, nil
	}
	all, err := readTable()
	if err != nil || !slices.ContainsFunc(all, func(p point) bool { return p.dev == m.Dev && p.dir == m.Dir && p.ours() }) {
		return false, err // the device may be that of another mount by now
	}
	abort(m.Dev)
	return true, detachAborted(m.Dir, m.Dev)
}

// IsAt reports whether the mount is the one that is in its place, and that is dir.
func (m Mark) IsAt(dir string) bool {
	dir, err := Locate("unmount", dir)
	if err != nil || dir != m.Dir {
		return false
	}
	p, mounted, err := topAt(dir)
	return err == nil && mounted && p.dev == m.Dev && p.ours()
}

// IsDead reports whether the mount is in its place still, and nobody serves it any more.
func (m Mark) IsDead() (bool, error) {
	p, mounted, err := topAt(m.Dir)
	return err == nil && mounted && p.dev == m.Dev && p.ours() && isDead(m.Dir), err
}

// Clear takes the mount away if it is dead. It reports whether it is. It is left alone where
// something else is mounted below it, which would go with it.
func (m Mark) Clear() (dead bool, err error) {
	if dead, err = m.IsDead(); !dead {
		return dead, err
	}
	if on := below(m.Dir); len(on) > 0 {
		return true, fmt.Errorf("%s is mounted below it: %w", Quote(on[0]), unix.EBUSY)
	}
	return true, detach(m.Dir)
}

// isKilled reports whether the process is there, and was killed.
func (m Mark) isKilled() bool {
	if boot, err := bootID(); err != nil || boot != m.Boot {
		return false
	}
	state, started, err := processState(m.PID)
	if err != nil || started != m.Started {
		return false // it is gone, and with it the connection
	}
	return state == 'Z' || state == 'X' || isToDie(m.PID)
}

// isToDie reports whether a thread was told to die by the kernel, and did not yet: one
// that waits for a lock does not.
func isToDie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if set, ok := strings.CutPrefix(line, "SigPnd:"); ok {
			pending, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && pending&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return false
}

// markOf is the mark of a mount that this process serves.
func markOf(dir, dev string) (Mark, error) {
	m := Mark{Dir: dir, Dev: dev, PID: os.Getpid()}
	var err error
	if m.Boot, err = bootID(); err == nil {
		_, m.Started, err = processState(m.PID)
	}
	return m, err
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// processState is the state of a process, as a letter, and when it was started.
func processState(pid int) (state byte, started uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // its name may have anything in it
	const startedField = 19
	if len(f) <= startedField || len(f[0]) != 1 {
		return 0, 0, fmt.Errorf("state of process %d: %q", pid, b)
	}
	started, err = strconv.ParseUint(string(f[startedField]), 10, 64)
	return f[0][0], started, err
}
