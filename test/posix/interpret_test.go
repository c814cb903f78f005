package posix

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"skep/cache/acl"
)

// scriptEnv tells a process, in the environment, to interpret a script from its
// standard input in its working directory.
const scriptEnv = "SKEP_POSIX_SCRIPT"

// interpreter runs system calls, one a line, and prints what each said. It
// changes its user as the script says, on its one thread.
type interpreter struct {
	out   io.Writer
	files map[string]int            // open ones, by the script's name
	marks map[uint64]unix.Stat_t    // what stat said at "mark", by inode
	ops   map[string]func([]string) // by name
	say   string                    // what the last call told
	err   error                     // how it ended
}

// interpret runs a whole script.
func interpret(in io.Reader, out io.Writer) error {
	runtime.LockOSThread() // never unlocked: the thread's user is not the process's
	w := bufio.NewWriter(out)
	i := &interpreter{out: w, files: map[string]int{}, marks: map[uint64]unix.Stat_t{}}
	i.define()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		i.line(lines.Text())
		if err := w.Flush(); err != nil { // somebody may wait for the answer
			return err
		}
	}
	return lines.Err()
}

func (i *interpreter) line(s string) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return
	}
	if strings.HasPrefix(s, "#") {
		fmt.Fprintln(i.out, s)
		return
	}
	op, ok := i.ops[words[0]]
	if !ok {
		panic("no such call: " + s)
	}
	i.say, i.err = "", nil
	op(words[1:])
	result := "ok"
	if i.err != nil {
		var errno syscall.Errno
		if !errors.As(i.err, &errno) {
			panic(i.err)
		}
		result = unix.ErrnoName(errno)
	}
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	fmt.Fprintln(i.out, strings.TrimSpace(fmt.Sprintf("%s: %s %s", s, result, i.say)))
}

// become changes the thread's effective user and groups.
func become(uid, gid int, groups []uint32) {
	call := func(trap, a, b, c uintptr) {
		if _, _, errno := unix.RawSyscall(trap, a, b, c); errno != 0 {
			panic(fmt.Sprintf("cannot become %d:%d: %v", uid, gid, errno))
		}
	}
	same := ^uintptr(0)
	call(unix.SYS_SETRESUID, same, 0, same)
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	call(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
	call(unix.SYS_SETRESGID, same, uintptr(gid), same)
	call(unix.SYS_SETRESUID, same, uintptr(uid), same)
}

// fsetid gives the thread the right to leave set-user-id on what it writes, or takes
// it.
func fsetid(yes bool) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		panic(err)
	}
	sets[0].Effective &^= 1 << unix.CAP_FSETID
	if yes {
		sets[0].Effective |= 1 << unix.CAP_FSETID
	}
	if err := unix.Capset(&head, &sets[0]); err != nil {
		panic(err)
	}
}

func number(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

// flagNames are what scripts call flags.
var flagNames = map[string]int{
	"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR, "creat": unix.O_CREAT, "excl": unix.O_EXCL,
	"trunc": unix.O_TRUNC, "append": unix.O_APPEND, "directory": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW,
	"nonblock": unix.O_NONBLOCK, "tmpfile": unix.O_TMPFILE, "path": unix.O_PATH, "sync": unix.O_SYNC, "noatime": unix.O_NOATIME,
	"noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE, "whiteout": unix.RENAME_WHITEOUT,
	"xcreate": unix.XATTR_CREATE, "xreplace": unix.XATTR_REPLACE,
	"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "chr": unix.S_IFCHR, "blk": unix.S_IFBLK, "reg": unix.S_IFREG,
	"keep": unix.FALLOC_FL_KEEP_SIZE, "punch": unix.FALLOC_FL_PUNCH_HOLE, "zero": unix.FALLOC_FL_ZERO_RANGE,
	"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE, "none": 0,
	"data": unix.SEEK_DATA, "hole": unix.SEEK_HOLE,
	"sh": unix.LOCK_SH, "ex": unix.LOCK_EX, "un": unix.LOCK_UN, "nb": unix.LOCK_NB,
}

func flags(s string) (n int) {
	for f := range strings.SplitSeq(s, "|") {
		v, ok := flagNames[f]
		if !ok {
			panic("no such flag: " + f)
		}
		n |= v
	}
	return n
}

// path expands what scripts cannot spell out: LONG is a name of 255 bytes, LONG+
// one more, and EMPTY nothing.
func path(s string) string {
	s = strings.ReplaceAll(s, "LONG+", strings.Repeat("l", 256))
	s = strings.ReplaceAll(s, "LONG", strings.Repeat("l", 255))
	return strings.ReplaceAll(s, "EMPTY", "")
}

func (i *interpreter) define() {
	at := func(fn func(p string, a []string) error) func([]string) {
		return func(a []string) { i.err = fn(path(a[0]), a[1:]) }
	}
	fd := func(fn func(fd int, a []string) error) func([]string) {
		return func(a []string) {
			f, ok := i.files[a[0]]
			if !ok {
				f = -1
			}
			i.err = fn(f, a[1:])
		}
	}
	i.ops = map[string]func([]string){
		"as":        func(a []string) { i.as(a) },
		"fsetid":    func(a []string) { fsetid(a[0] == "yes") },
		"umask":     func(a []string) { unix.Umask(number(a[0])) },
		"mkdir":     at(func(p string, a []string) error { return unix.Mkdir(p, uint32(number(a[0]))) }),
		"rmdir":     at(func(p string, _ []string) error { return unix.Rmdir(p) }),
		"unlink":    at(func(p string, _ []string) error { return unix.Unlink(p) }),
		"link":      at(func(p string, a []string) error { return unix.Link(p, path(a[0])) }),
		"symlink":   at(func(p string, a []string) error { return unix.Symlink(p, path(a[0])) }),
		"readlink":  at(i.readlink),
		"rename":    at(i.rename),
		"mknod":     at(i.mknod),
		"chmod":     at(func(p string, a []string) error { return unix.Chmod(p, uint32(number(a[0]))) }),
		"chown":     at(func(p string, a []string) error { return unix.Chown(p, number(a[0]), number(a[1])) }),
		"lchown":    at(func(p string, a []string) error { return unix.Lchown(p, number(a[0]), number(a[1])) }),
		"truncate":  at(func(p string, a []string) error { return unix.Truncate(p, int64(number(a[0]))) }),
		"access":    at(func(p string, a []string) error { return i.access(p, number(a[0])) }),
		"utimens":   at(i.utimens),
		"touch":     at(i.touch),
		"stat":      at(func(p string, _ []string) error { return i.stat(p, 0) }),
		"lstat":     at(func(p string, _ []string) error { return i.stat(p, unix.AT_SYMLINK_NOFOLLOW) }),
		"times":     at(i.times),
		"mark":      at(i.mark),
		"moved":     at(i.moved),
		"list":      at(i.list),
		"setxattr":  at(i.setxattr),
		"getxattr":  at(i.getxattr),
		"rmxattr":   at(func(p string, a []string) error { return unix.Lremovexattr(p, a[0]) }),
		"lsxattr":   at(i.listxattr),
		"setacl":    at(i.setacl),
		"cat":       at(i.cat),
		"open":      func(a []string) { i.open(a) },
		"close":     fd(func(f int, a []string) error { return unix.Close(f) }),
		"pwrite":    fd(func(f int, a []string) error { _, err := unix.Pwrite(f, []byte(a[1]), int64(number(a[0]))); return err }),
		"write":     fd(func(f int, a []string) error { _, err := unix.Write(f, []byte(a[0])); return err }),
		"pread":     fd(i.pread),
		"fstat":     fd(i.fstat),
		"fchmod":    fd(func(f int, a []string) error { return unix.Fchmod(f, uint32(number(a[0]))) }),
		"fchown":    fd(func(f int, a []string) error { return unix.Fchown(f, number(a[0]), number(a[1])) }),
		"ftruncate": fd(func(f int, a []string) error { return unix.Ftruncate(f, int64(number(a[0]))) }),
		"fallocate": fd(func(f int, a []string) error {
			return unix.Fallocate(f, uint32(flags(a[0])), int64(number(a[1])), int64(number(a[2])))
		}),
		"seek":    fd(i.seek),
		"linkfd":  fd(i.linkfd),
		"dup":     fd(i.dup),
		"flock":   fd(func(f int, a []string) error { return unix.Flock(f, flags(a[0])) }),
		"setlk":   fd(i.lock(unix.F_SETLK)),
		"setlkw":  fd(i.lock(unix.F_SETLKW)),
		"getlk":   fd(i.lock(unix.F_GETLK)),
		"ofdset":  fd(i.lock(unix.F_OFD_SETLK)),
		"ofdsetw": fd(i.lock(unix.F_OFD_SETLKW)),
		"ofdget":  fd(i.lock(unix.F_OFD_GETLK)),
		"thread":  i.thread,
	}
}

// as changes the user: "as UID GID [GROUP…]".
func (i *interpreter) as(a []string) {
	var groups []uint32
	for _, g := range a[2:] {
		groups = append(groups, uint32(number(g)))
	}
	become(number(a[0]), number(a[1]), groups)
}

func (i *interpreter) open(a []string) {
	mode := 0
	if len(a) > 3 {
		mode = number(a[3])
	}
	if old, ok := i.files[a[0]]; ok {
		_ = unix.Close(old)
		delete(i.files, a[0])
	}
	f, err := unix.Open(path(a[1]), flags(a[2]), uint32(mode))
	i.err = err
	if err == nil {
		i.files[a[0]] = f
	}
}

func (i *interpreter) readlink(p string, _ []string) error {
	b := make([]byte, 5000)
	n, err := unix.Readlink(p, b)
	if err == nil {
		i.say = string(b[:min(n, 40)])
	}
	return err
}

func (i *interpreter) rename(p string, a []string) error {
	how := 0
	if len(a) > 1 {
		how = flags(a[1])
	}
	return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, path(a[0]), uint(how))
}

func (i *interpreter) mknod(p string, a []string) error {
	dev := 0
	if len(a) > 2 {
		dev = number(a[2])
	}
	return unix.Mknod(p, uint32(flags(a[0])|number(a[1])), dev)
}

func (i *interpreter) access(p string, mode int) error {
	return unix.Faccessat2(unix.AT_FDCWD, p, uint32(mode), unix.AT_EACCESS)
}

func (i *interpreter) utimens(p string, a []string) error {
	var ts []unix.Timespec
	for n := 0; n < 4; n += 2 {
		ts = append(ts, unix.Timespec{Sec: int64(number(a[n])), Nsec: int64(number(a[n+1]))})
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// touch sets both times to now, as anybody may who may write.
func (i *interpreter) touch(p string, _ []string) error {
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, now, 0)
}

func (i *interpreter) stat(p string, how int) error {
	var st unix.Stat_t
	err := unix.Fstatat(unix.AT_FDCWD, p, &st, how)
	if err == nil {
		i.tell(&st)
	}
	return err
}

func (i *interpreter) fstat(f int, _ []string) error {
	var st unix.Stat_t
	err := unix.Fstat(f, &st)
	if err == nil {
		i.tell(&st)
	}
	return err
}

// tell says what all filesystems agree on.
func (i *interpreter) tell(st *unix.Stat_t) {
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	i.say = fmt.Sprintf("%o links %d owner %d:%d size %d dev %d", st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Rdev)
}

func (i *interpreter) times(p string, _ []string) error {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	i.say = fmt.Sprintf("%d.%09d %d.%09d", st.Atim.Sec, st.Atim.Nsec, st.Mtim.Sec, st.Mtim.Nsec)
	return err
}

// mark remembers times; what happens later is later for the coarsest clock.
func (i *interpreter) mark(p string, _ []string) error {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	i.marks[st.Ino] = st
	for began := coarse(); coarse() == began; {
		runtime.Gosched()
	}
	return err
}

// coarse reads the clock that ext4 takes times from.
func coarse() (ts unix.Timespec) {
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		panic(err)
	}
	return ts
}

// moved says which times changed since the mark.
func (i *interpreter) moved(p string, _ []string) error {
	var st unix.Stat_t
	err := unix.Lstat(p, &st)
	old := i.marks[st.Ino]
	if st.Mtim != old.Mtim {
		i.say += "m"
	}
	if st.Ctim != old.Ctim {
		i.say += "c"
	}
	return err
}

func (i *interpreter) list(p string, _ []string) error {
	entries, err := os.ReadDir(p)
	var names []string
	for _, e := range entries {
		name := e.Name()
		if len(name) > 20 {
			name = fmt.Sprint(name[:3], len(name))
		}
		names = append(names, name)
	}
	slices.Sort(names)
	i.say = strings.Join(names, " ")
	return err
}

func (i *interpreter) setxattr(p string, a []string) error {
	how := 0
	if len(a) > 2 {
		how = flags(a[2])
	}
	return unix.Lsetxattr(p, a[0], []byte(a[1]), how)
}

func (i *interpreter) getxattr(p string, a []string) error {
	b := make([]byte, 65536)
	n, err := unix.Lgetxattr(p, a[0], b)
	if err == nil {
		i.say = hex.EncodeToString(b[:n])
	}
	return err
}

func (i *interpreter) listxattr(p string, _ []string) error {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(p, b)
	if err != nil {
		return err
	}
	names := strings.Split(strings.Trim(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	i.say = strings.Join(names, " ")
	return nil
}

// setacl sets a list: "setacl PATH access u::7 u:1000:6 g::5 m::6 o::0".
func (i *interpreter) setacl(p string, a []string) error {
	tags := map[string]acl.Tag{"u": acl.User, "u:": acl.UserObj, "g": acl.Group, "g:": acl.GroupObj, "m:": acl.Mask, "o:": acl.Other}
	var l acl.List
	for _, e := range a[1:] {
		part := strings.Split(e, ":")
		entry := acl.Entry{Perm: uint16(number(part[2])), ID: ^uint32(0)}
		if part[1] == "" {
			entry.Tag = tags[part[0]+":"]
		} else {
			entry.Tag, entry.ID = tags[part[0]], uint32(number(part[1]))
		}
		l = append(l, entry)
	}
	return unix.Setxattr(p, "system.posix_acl_"+a[0], l.Bytes(), 0)
}

func (i *interpreter) cat(p string, _ []string) error {
	f, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe without a writer does not wait
	if err != nil {
		return err
	}
	defer unix.Close(f)
	b := make([]byte, 60)
	n, err := unix.Read(f, b)
	if err == nil {
		i.say = fmt.Sprintf("%q", b[:n])
	}
	return err
}

func (i *interpreter) pread(f int, a []string) error {
	b := make([]byte, number(a[1]))
	n, err := unix.Pread(f, b, int64(number(a[0])))
	if err == nil {
		i.say = fmt.Sprintf("%q", b[:n])
	}
	return err
}

func (i *interpreter) seek(f int, a []string) error {
	off, err := unix.Seek(f, int64(number(a[0])), flags(a[1]))
	if err == nil {
		i.say = fmt.Sprint(off)
	}
	return err
}

// linkfd gives an open file a name.
func (i *interpreter) linkfd(f int, a []string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f), unix.AT_FDCWD, path(a[0]), unix.AT_SYMLINK_FOLLOW)
}
