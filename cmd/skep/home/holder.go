package home

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Holder names the process that has the home locked, such as "process 17 (skep)"; empty if
// there is none, or Linux does not show it.
func (d Dir) Holder() string {
	st, err := os.Stat(d.Path(lockFile))
	if err != nil {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(sys.Dev), unix.Minor(sys.Dev), sys.Ino)
	for s := bufio.NewScanner(f); s.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
		l := strings.Fields(s.Text())
		if len(l) < 6 || l[1] != "FLOCK" || l[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(l[4]); err == nil && pid > 0 {
			name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
		}
	}
	return ""
}

// isBeingMade reports whether somebody is making the home at this moment.
func (d Dir) isBeingMade() bool {
	if _, err := os.Stat(d.Path(begunFile)); err != nil {
		return false
	}
	f, err := os.Open(d.Path(lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
