package mount

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/test/posix/ordinary"
)

// childDir names, in the environment of a child process, where it is to mount.
const childDir = "SKEP_MOUNT_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(threadsDir); dir != "" {
		waitInThreads(dir)
	}
	if dir := os.Getenv(childDir); dir != "" {
		if os.Getenv(childNotices) != "" {
			serveNoticing(dir)
		}
		serveChild(dir)
		return
	}
	os.Exit(ordinary.Main(m))
}

// serveChild mounts and serves until it is killed.
func serveChild(dir string) {
	s, err := Mount(dir, newBare(), Options{})
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("ready\n")
	_ = s.Run(context.Background())
}

// bare is a filesystem with an empty root and names that begin with "slow", whose
// lookup waits until the caller gives up, or they are found.
type bare struct {
	fuse.RawFileSystem
	asked  chan struct{} // receives for each lookup of a slow name
	found  chan struct{} // ends one that waits
	kernel Kernel
}

func newBare() *bare {
	return &bare{RawFileSystem: fuse.NewDefaultRawFileSystem(), asked: make(chan struct{}, 8), found: make(chan struct{})}
}

func (s *bare) Attach(k Kernel) { s.kernel = k }

func (s *bare) GetAttr(_ <-chan struct{}, _ *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr = fuse.Attr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2, Owner: *fuse.CurrentOwner()}
	out.SetTimeout(time.Hour) // a drive is the only one to change its files
	return fuse.OK
}

func (s *bare) Lookup(cancel <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case strings.HasPrefix(name, "slow"):
		s.asked <- struct{}{}
		select {
		case <-cancel:
			return fuse.EINTR
		case <-s.found:
			out.NodeId = 2
			out.Attr = fuse.Attr{Ino: 2, Mode: unix.S_IFREG | 0o644, Nlink: 1, Owner: *fuse.CurrentOwner()}
			out.SetAttrTimeout(time.Hour)
			return fuse.OK
		}
	case name == "panic":
		panic("on purpose")
	}
	return fuse.ENOENT
}

// mounted mounts a bare filesystem for the time of the test.
func mounted(t *testing.T, opt Options) (string, Server, *bare, func() error) {
	t.Helper()
	needFUSE(t)
	dir := t.TempDir()
	fs := newBare()
	s, err := Mount(dir, fs, opt)
	must(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- s.Run(ctx) }()
	wait := func() error {
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() {
		cancel()
		wait()
	})
	return dir, s, fs, wait
}

func needFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(device); err != nil {
		t.Skipf("no FUSE on this machine: %v", err)
	}
}

// twice runs a test as whoever runs it and, from root, as an ordinary user.
func twice(t *testing.T) {
	if !ordinary.Is() && os.Geteuid() == 0 {
		ordinary.Run(t)
	}
}

func TestMountUnmount(t *testing.T) {
	twice(t)
	dir, s, fs, wait := mounted(t, Options{})
	p, ok, err := topAt(dir)
	if err != nil || !ok || !p.ours() {
		t.Fatalf("table of mounts: %+v, %v, %v", p, ok, err)
	}
	if fs.kernel == nil {
		t.Error("Attach was not called")
	}
	st, err := os.Stat(dir)
	must(t, err)
	if st.Sys().(*syscall.Stat_t).Ino != 1 {
		t.Error("the mount does not show the filesystem")
	}
	_, err = Mount(dir, newBare(), Options{})
	wantReason(t, err, ErrMounted)
	must(t, s.Unmount(t.Context()))
	must(t, wait())
	must(t, s.Unmount(t.Context())) // again: nothing to do
	if _, ok, _ := topAt(dir); ok {
		t.Error("still mounted")
	}
	wantReason(t, Unmount(t.Context(), dir), ErrNotMounted)
}

// A mount is found where it is by now if a folder above it was renamed.
func TestFolderAboveIsRenamed(t *testing.T) {
	twice(t)
	dir, s, _, wait := mounted(t, Options{})
	above := filepath.Dir(dir)
	must(t, os.Rename(above, above+" now"))
	defer func() { must(t, os.Rename(above+" now", above)) }()
	now := filepath.Join(above+" now", filepath.Base(dir))
	if at, attached := s.Point(); at != now || !attached {
		t.Errorf("it is at %s, %v", at, attached)
	}
	must(t, s.Unmount(t.Context()))
	must(t, wait())
	if _, attached := s.Point(); attached {
		t.Error("it is still there")
	}
}

func TestBusy(t *testing.T) {
	twice(t)
	dir, s, _, wait := mounted(t, Options{})
	// Not by user.Dir: between fork and exec, this process would wait for itself.
	user := exec.Command("sh", "-c", `cd "$1" && echo there && exec cat`, "sh", dir)
	in, err := user.StdinPipe()
	must(t, err)
	out, err := user.StdoutPipe()
	must(t, err)
	must(t, user.Start())
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "there\n" {
		t.Fatalf("got %q", line)
	}
	err = s.Unmount(t.Context())
	var busy *BusyError
	if !errors.As(err, &busy) || !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v, want a BusyError", err)
	}
	found := false
	for _, u := range busy.Uses {
		found = found || u.PID == user.Process.Pid && u.What == "working directory "+dir
	}
	if !found {
		t.Errorf("%v does not name process %d", err, user.Process.Pid)
	}
	must(t, in.Close())
	must(t, user.Wait())
	must(t, s.Unmount(t.Context()))
	must(t, wait())
}

func TestForceEndsWaitingCallers(t *testing.T) {
	if !mayMount() {
		t.Skip("an ordinary user can only detach")
	}
	dir, s, fs, wait := mounted(t, Options{})
	caller := exec.Command("stat", filepath.Join(dir, "slow"))
	must(t, caller.Start())
	<-fs.asked
	must(t, s.ForceUnmount())
	if err := caller.Wait(); err == nil {
		t.Error("the caller was not told")
	}
	must(t, wait())
}

// Who serves a mount takes it away when its connection has ended, perhaps before who
// ended it does.
func TestForceIsOvertaken(t *testing.T) {
	twice(t)
	dir, _, _, wait := mounted(t, Options{})
	p, _, err := topAt(dir)
	must(t, err)
	must(t, detachAborted(dir, p.dev))
	must(t, detachAborted(dir, p.dev))
	must(t, wait())
}

// A server whose mount is gone leaves the one alone that has its numbers now, as the
// kernel gives them to the next one: before its loop has found out, and after.
func TestNumbersAreAnothers(t *testing.T) {
	twice(t)
	for name, opt := range map[string]Options{"": {}, "stock": {Stock: true}} {
		for _, dir := range []string{"", "whose device is not known"} {
			t.Run(name+dir, func(t *testing.T) {
				_, next, _, _ := mounted(t, opt)
				at := next.(*served).at
				gone, err := Mount(t.TempDir(), newBare(), opt)
				must(t, err)
				s := gone.(*served)
				must(t, detach(s.at.dir))
				if s.at = at; dir != "" {
					s.at = point{dir: at.dir}
				}
				left := func(when string, err error) {
					t.Helper()
					if p, attached := next.Point(); err != nil || p != at.dir || !attached {
						t.Fatalf("%s: %v, the other one is at %q, %v", when, err, p, attached)
					}
				}
				if !opt.Stock { // which finds out when its loop ends
					left("a server's end by force", s.ForceUnmount())
				}
				left("its end", s.Run(context.Background()))
				if dir, attached := s.Point(); attached {
					t.Errorf("it is at %s", dir)
				}
				left("its unmounting", s.Unmount(t.Context()))
				left("by force", s.ForceUnmount())
			})
		}
	}
}

// A mount whose connection was ended, and that is busy, is taken away by its server.
func TestAbortedAndBusy(t *testing.T) {
	if !mayMount() {
		t.Skip("an ordinary user cannot end a connection")
	}
	for name, opt := range map[string]Options{"": {}, "stock": {Stock: true}} {
		t.Run(name, func(t *testing.T) {
			dir, _, _, wait := mounted(t, opt)
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
			must(t, err)
			defer unix.Close(fd)
			if err := unix.Unmount(dir, unix.MNT_FORCE); err != unix.EBUSY {
				t.Fatal(err)
			}
			must(t, wait())
			if _, ok, err := topAt(dir); ok || err != nil {
				t.Errorf("it is there still: %v, %v", ok, err)
			}
		})
	}
}

// TestInterruptedCaller: who waits for an answer can be stopped.
func TestInterruptedCaller(t *testing.T) {
	twice(t)
	dir, s, fs, wait := mounted(t, Options{})
	caller := exec.Command("stat", filepath.Join(dir, "slow"))
	must(t, caller.Start())
	<-fs.asked
	must(t, caller.Process.Signal(os.Interrupt))
	if err := caller.Wait(); err == nil {
		t.Error("the caller got an answer")
	}
	must(t, s.Unmount(t.Context()))
	must(t, wait())
}

func TestRunEndsWithContext(t *testing.T) {
	twice(t)
	needFUSE(t)
	dir := t.TempDir()
	s, err := Mount(dir, newBare(), Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Run(ctx))
	if _, ok, _ := topAt(dir); ok {
		t.Error("still mounted")
	}
}

func TestPanicIsAnError(t *testing.T) {
	var log strings.Builder
	dir, s, _, wait := mounted(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	err := exec.Command("stat", filepath.Join(dir, "panic")).Run()
	if err == nil {
		t.Error("the caller was not told")
	}
	must(t, s.Unmount(t.Context()))
	must(t, wait())
	if !strings.Contains(log.String(), "on purpose") {
		t.Errorf("log: %s", log.String())
	}
}

func TestDeadMount(t *testing.T) {
	twice(t)
	needFUSE(t)
	dir := t.TempDir()
	crash(t, dir)
	if !isDead(dir) {
		t.Fatal("the mount should be dead")
	}
	must(t, Check(dir, Options{}))
	s, err := Mount(dir, newBare(), Options{})
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("after mounting over it: %v", err)
	}
	must(t, s.Unmount(t.Context()))
	must(t, <-ended)
	if p, ok, _ := topAt(dir); ok {
		t.Errorf("left over: %+v", p)
	}
	crash(t, dir)
	must(t, Unmount(t.Context(), dir)) // what is dead is not busy
	crash(t, dir)
	must(t, ForceUnmount(dir))
}

// crash leaves a dead mount at dir.
func crash(t *testing.T, dir string) {
	t.Helper()
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child: %s", line)
	}
	_, err = os.Stat(dir) // now the kernel remembers the root, and goes on to when it is dead
	must(t, err)
	must(t, child.Process.Kill())
	io.Copy(io.Discard, out)
	child.Wait()
	t.Cleanup(func() {
		if _, ok, _ := topAt(dir); ok {
			detach(dir)
		}
	})
}

func TestReadOnly(t *testing.T) {
	twice(t)
	dir, _, _, _ := mounted(t, Options{ReadOnly: true, NoAtime: true, NoExec: true})
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("got %v, want EROFS", err)
	}
}

func TestBadPoints(t *testing.T) {
	needFUSE(t)
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	must(t, os.WriteFile(at("file"), nil, 0o644))
	must(t, os.MkdirAll(at("full/sub"), 0o755))
	must(t, os.MkdirAll(at("home/inside"), 0o755))
	must(t, os.MkdirAll(at("empty"), 0o755))
	must(t, os.Symlink("home", at("alias")))
	for _, tt := range []struct {
		name   string
		opt    Options
		reason error
		says   string
	}{
		{"missing", Options{}, ErrNotExist, "mkdir -p"},
		{"missing/deeper", Options{}, ErrNotExist, "mkdir -p"},
		{"file", Options{}, ErrNotDir, "choose an empty directory"},
		{"file/x", Options{}, ErrNotDir, "choose an empty directory"},
		{"full", Options{}, ErrNotEmpty, "-o nonempty"},
		{"home", Options{Home: at("home"), NonEmpty: true}, ErrInsideHome, "outside of"},
		{"home/inside", Options{Home: at("home")}, ErrInsideHome, "outside of"},
		{"alias/inside", Options{Home: at("home")}, ErrInsideHome, "outside of"},
		{"home/inside", Options{Home: at("alias")}, ErrInsideHome, "outside of"},
		{"full", Options{Home: at("full/sub"), NonEmpty: true}, ErrHomeInside, "hide"},
		{"empty", Options{Home: at("empty/not-there-yet")}, ErrHomeInside, "hide"},
	} {
		_, err := Mount(at(tt.name), newBare(), tt.opt)
		wantReason(t, err, tt.reason)
		if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), base) {
			t.Errorf("%s: the message should say %q: %v", tt.name, tt.says, err)
		}
		wantReason(t, Check(at(tt.name), tt.opt), tt.reason)
	}
	must(t, Check(at("full"), Options{NonEmpty: true, Home: at("home")}))
	must(t, Check(at("empty"), Options{Home: at("home")}))
}

// TestOrdinaryPermissions is what only an ordinary user runs into.
func TestOrdinaryPermissions(t *testing.T) {
	twice(t)
	if !ordinary.Is() {
		return
	}
	_, err := Mount("/usr", newBare(), Options{NonEmpty: true})
	wantReason(t, err, ErrPermission)
	_, err = Mount(t.TempDir(), newBare(), Options{AllowOther: true})
	if err != nil { // allowed where /etc/fuse.conf says so
		wantReason(t, err, ErrAllowOther)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat("/usr/bin/fusermount3"); err != nil {
		_, err = Mount(t.TempDir(), newBare(), Options{})
		wantReason(t, err, ErrNoHelper)
	}
}

// A helper that does not end holds nobody up.
func TestHelperHangs(t *testing.T) {
	bin := t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, "fusermount3"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	defer func(was time.Duration) { helperPatience = was }(helperPatience)
	helperPatience = 100 * time.Millisecond
	if err := runHelper(t.TempDir(), "-u"); err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("unmounting: %v", err)
	}
	if _, err := attachHelper(t.TempDir(), Options{}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("mounting: %v", err)
	}
}

func wantReason(t *testing.T, err, reason error) {
	t.Helper()
	var pe *PointError
	if !errors.Is(err, reason) || !errors.As(err, &pe) {
		t.Errorf("got %v, want a PointError for %q", err, reason)
	}
}
