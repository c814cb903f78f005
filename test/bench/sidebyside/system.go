package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"skep/fs/mount"
	"skep/test/memfs"
)

// system is one column of the table.
type system struct {
	name, title string
	ordinary    bool // works and mounts as an ordinary user
	// start begins to serve the directory drive, with base for whatever it needs.
	// It returns what serves it.
	start func(b *bed) (*exec.Cmd, error)
	// missing is the program without which there is no such column.
	missing string
}

// bed is where a system is set up.
type bed struct {
	base, drive string
	skep        string // the binary
}

func (b *bed) path(elem ...string) string {
	return filepath.Join(append([]string{b.base}, elem...)...)
}

var systems = []system{
	{name: "bare", title: "bare directory", start: func(*bed) (*exec.Cmd, error) { return nil, nil }},
	{name: "memory", title: "in memory, stock loop", start: serveSelf("memory")},
	{name: "checked", title: "the same, permissions checked", start: serveSelf("checked")},
	{name: "floor", title: "in memory, our loop", start: serveSelf("floor")},
	{name: "loopback", title: "go-fuse loopback", start: serveSelf("loopback")},
	{name: "gocryptfs", title: "gocryptfs", start: startGocryptfs, missing: "gocryptfs"},
	{name: "skep", title: "skep", start: startSkep},
	{name: "user", title: "skep, ordinary user", start: startSkep, ordinary: true},
}

// serveSelf has this program, as a process of its own, serve a filesystem.
func serveSelf(kind string) func(b *bed) (*exec.Cmd, error) {
	return func(b *bed) (*exec.Cmd, error) {
		if err := os.Mkdir(b.path("below"), 0o755); err != nil {
			return nil, err
		}
		return started(exec.Command("/proc/self/exe", "-serve", kind, b.drive, b.path("below")))
	}
}

// started starts a process and waits for its first line.
func started(cmd *exec.Cmd) (*exec.Cmd, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not start", cmd.Path), cmd.Wait())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return cmd, nil
}

// serve is the other side of serveSelf.
func serve(kind, dir, below string) error {
	var srv interface{ Wait() }
	var unmount func() error
	switch kind {
	case "floor":
		s, err := mount.Mount(dir, memfs.New(), mount.Options{})
		if err != nil {
			return err
		}
		fmt.Println("ready")
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		return s.Run(ctx)
	case "memory", "checked":
		var options []string
		if kind == "checked" {
			options = []string{"default_permissions"}
		}
		s, err := fuse.NewServer(memfs.New(), dir, &fuse.MountOptions{
			Name: "memory", Options: options, MaxWrite: 1 << 20, MaxBackground: 64, DirectMount: true,
			ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_NO_OPENDIR_SUPPORT,
		})
		if err != nil {
			return err
		}
		go s.Serve()
		srv, unmount = s, s.Unmount
	case "loopback": // as in go-fuse's example
		root, err := gofs.NewLoopbackRoot(below)
		if err != nil {
			return err
		}
		second := time.Second
		s, err := gofs.Mount(dir, root, &gofs.Options{AttrTimeout: &second, EntryTimeout: &second, NullPermissions: true,
			MountOptions: fuse.MountOptions{FsName: below, Name: "loopback", DirectMount: true}})
		if err != nil {
			return err
		}
		srv, unmount = s, s.Unmount
	default:
		return fmt.Errorf("unknown filesystem %q", kind)
	}
	fmt.Println("ready")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		_ = unmount()
	}()
	srv.Wait()
	return nil
}

func startGocryptfs(b *bed) (*exec.Cmd, error) {
	if err := errors.Join(os.Mkdir(b.path("cipher"), 0o755), os.WriteFile(b.path("password"), []byte("password"), 0o600)); err != nil {
		return nil, err
	}
	argv := []string{"-q", "-passfile", b.path("password")}
	out, err := exec.Command("gocryptfs", append(argv, "-init", "-scryptn", "10", b.path("cipher"))...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("gocryptfs -init: %w: %s", err, out)
	}
	cmd := exec.Command("gocryptfs", append(argv, "-fg", b.path("cipher"), b.drive)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, mountedSoon(b.drive)
}

func startSkep(b *bed) (*exec.Cmd, error) {
	home := []string{"--home", b.path("home")}
	out, err := exec.Command(b.skep, append([]string{"init", "--words-file", b.path("words"), "--offer", "0",
		"--listen", "/ip4/127.0.0.1/tcp/0"}, home...)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("skep init: %w: %s", err, out)
	}
	cmd := exec.Command(b.skep, append([]string{"mount", "--foreground", b.drive}, home...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	// It has no peers, and would say so again and again.
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, mountedSoon(b.drive)
}

// mountedSoon waits until something is mounted at dir.
func mountedSoon(dir string) error {
	var above, here unix.Stat_t
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if unix.Stat(dir, &here) == nil && here.Dev != above.Dev {
			return nil
		}
	}
	return fmt.Errorf("nothing was mounted at %s", dir)
}

// stop ends what start began.
func stop(cmd *exec.Cmd, drive string) error {
	if cmd == nil {
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	err := cmd.Wait()
	if out, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(out), " "+drive+" ") {
		return errors.Join(err, unix.Unmount(drive, unix.MNT_DETACH))
	}
	return nil // however it says that it was told to end
}
