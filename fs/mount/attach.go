package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// device is how the kernel speaks FUSE.
const device = "/dev/fuse"

// attach mounts at dir and returns the descriptor of /dev/fuse that serves the
// mount.
func attach(dir string, opt Options) (fd int, err error) {
	if mayMount() {
		return attachDirect(dir, opt)
	}
	return attachHelper(dir, opt)
}

// attachDirect calls mount(2).
func attachDirect(dir string, opt Options) (int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, noDevice(dir, err)
	case err != nil:
		return -1, &PointError{"mount", dir, ErrPermission, "this process may not open " + device, err}
	}
	words := append(opt.kernelWords(),
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", unix.S_IFDIR),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()))
	if err := unix.Mount(opt.source(), dir, "fuse."+Name, opt.kernelFlags(), strings.Join(words, ",")); err != nil {
		_ = unix.Close(fd)
		return -1, directProblem(dir, err)
	}
	return fd, nil
}

// kernelFlags are the options that every filesystem has.
func (o *Options) kernelFlags() uintptr {
	var flags uintptr
	for _, f := range []struct {
		flag uintptr
		on   bool
	}{
		{unix.MS_NOSUID, !o.SetUser}, {unix.MS_NODEV, !o.Devices},
		{unix.MS_RDONLY, o.ReadOnly}, {unix.MS_NOATIME, o.NoAtime}, {unix.MS_NOEXEC, o.NoExec},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// kernelWords are the options that the kernel's FUSE itself reads.
func (o *Options) kernelWords() []string {
	words := []string{"default_permissions", fmt.Sprintf("max_read=%d", maxIO)}
	if o.AllowOther {
		words = append(words, "allow_other")
	}
	return words
}

func directProblem(dir string, err error) error {
	e := &PointError{"mount", dir, ErrRefused, "", err}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Reason, e.Do = ErrPermission, "mounting needs CAP_SYS_ADMIN; in a container, add --cap-add SYS_ADMIN"
	case errors.Is(err, unix.ENODEV):
		return noDevice(dir, err)
	}
	return e
}

// attachHelper has fusermount3 call mount(2). It hands the descriptor back
// through a socket.
func attachHelper(dir string, opt Options) (int, error) {
	if opt.SetUser || opt.Devices {
		return -1, &PointError{"mount", dir, ErrPermission, "leave suid and dev out, or mount as root", nil}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: socketpair: %w", dir, err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3")
	said, err := callHelper(theirs, "-o", strings.Join(opt.helperWords(), ","), "--", dir)
	_ = theirs.Close()
	if errors.Is(err, ErrNoHelper) {
		return -1, &PointError{"mount", dir, ErrNoHelper, "install the package fuse3 of your system, or mount as root", nil}
	}
	if err != nil {
		return -1, helperProblem(dir, said, err)
	}
	fd, err := receive(pair[0])
	if err != nil {
		return -1, fmt.Errorf("mount %s: fusermount3 handed no descriptor over: %w", dir, err)
	}
	return fd, nil
}

// helperPatience is how long fusermount3 may take: it waits for whoever serves what
// it looks at.
var helperPatience = 30 * time.Second

// callHelper runs fusermount3, with a socket to hand a descriptor over by if that is
// not nil, and returns what it said. It fails with ErrNoHelper where it is missing.
func callHelper(socket *os.File, args ...string) (said string, err error) {
	path, err := helper()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperPatience)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if socket != nil {
		cmd.Env = append(cmd.Env, "_FUSE_COMMFD=3")
		cmd.ExtraFiles = []*os.File{socket} // becomes descriptor 3
	}
	cmd.Stderr, cmd.WaitDelay = &errs, time.Second
	if err = cmd.Run(); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("fusermount3 did not end within %v", helperPatience)
	}
	return strings.TrimSpace(errs.String()), err
}

// helperWords are the options as fusermount3 takes them.
func (o *Options) helperWords() []string {
	source := strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(o.source())
	words := append(o.kernelWords(), "fsname="+source, "subtype="+Name, "nosuid", "nodev")
	for _, w := range []struct {
		word string
		on   bool
	}{{"ro", o.ReadOnly}, {"noatime", o.NoAtime}, {"noexec", o.NoExec}} {
		if w.on {
			words = append(words, w.word)
		}
	}
	return words
}

// helperProblem explains what fusermount3 said; that is a sentence for people,
// so only the case with a remedy of its own is told apart.
func helperProblem(dir, said string, err error) error {
	said = strings.TrimSpace(strings.ReplaceAll(said, "fusermount3: ", ""))
	if said != "" {
		err = fmt.Errorf("fusermount3: %s", said)
	}
	if strings.Contains(said, "user_allow_other") {
		return allowsNoOther(dir)
	}
	return &PointError{"mount", dir, ErrRefused, "check that the directory belongs to you and that you may use FUSE", err}
}

func allowsNoOther(dir string) error {
	return &PointError{"mount", dir, ErrAllowOther,
		"leave allow_other out, or have root add the line user_allow_other to /etc/fuse.conf", nil}
}

// receive takes a descriptor from a socket.
func receive(sock int) (int, error) {
	var b [4]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range msgs {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, unix.ENOMSG
}
