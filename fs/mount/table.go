package mount

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// point is a line of the kernel's table of mounts.
type point struct {
	id     string // of the mount, as long as it is there
	dev    string // major:minor of the filesystem
	dir    string
	fstype string
}

// ours reports whether the mount is one of this package.
func (p point) ours() bool { return p.fstype == "fuse."+Name }

func (p point) isFUSE() bool { return p.fstype == "fuse" || strings.HasPrefix(p.fstype, "fuse.") }

// readTable reads the table of mounts, in the order in which they were made.
func readTable() ([]point, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("table of mounts: %w", err)
	}
	defer f.Close()
	var ps []point
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if p, ok := parsePoint(sc.Text()); ok {
			ps = append(ps, p)
		}
	}
	return ps, sc.Err()
}

// parsePoint reads a line such as
//
//	36 35 98:0 /root /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw
func parsePoint(line string) (point, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	h, t := strings.Fields(head), strings.Fields(tail)
	if !ok || len(h) < 6 || len(t) < 1 {
		return point{}, false
	}
	return point{id: h[0], dev: h[2], dir: unescape(h[4]), fstype: t[0]}, true
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '7' {
			return false
		}
	}
	return true
}

// topAt returns what is mounted at dir, the last mount of several.
func topAt(dir string) (point, bool, error) {
	ps, err := readTable()
	if err != nil {
		return point{}, false, err
	}
	for i := len(ps) - 1; i >= 0; i-- {
		if ps[i].dir == dir {
			return ps[i], true, nil
		}
	}
	return point{}, false, nil
}

// now returns where a mount is by now: a folder above it may have another name since. It is
// not there where another one covers it.
func (p point) now() (point, bool) {
	ps, err := readTable()
	if err != nil {
		return p, false
	}
	for i, q := range ps {
		if q.id == p.id && q.dev == p.dev && q.ours() {
			return q, !slices.ContainsFunc(ps[i+1:], func(over point) bool { return over.dir == q.dir })
		}
	}
	return p, false
}

// below lists the directories under dir on which something is mounted.
func below(dir string) []string {
	ps, err := readTable()
	if err != nil {
		return nil
	}
	var dirs []string
	for _, p := range ps {
		if p.dir != dir && within(p.dir, dir) {
			dirs = append(dirs, p.dir)
		}
	}
	return dirs
}

// within reports whether path is dir or lies below it, going by the names.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}
