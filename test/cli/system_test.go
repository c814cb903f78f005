package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"skep/test/harness"
)

// mount(8) mounts by a helper that is skep under another name.
func TestMountHelper(t *testing.T) {
	asUser(t)
	d := alone(t)
	helper := filepath.Join(harness.Dir(t), "mount.fuse.skep")
	must(t, os.Symlink(harness.Binary(), helper))
	out, err := exec.Command(helper, d.Home, d.Mnt, "-o", "rw,nofail,_netdev,noatime").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, d.Path("file"), "content")
	if out, err := exec.Command(helper, d.Home, d.Mnt, "-o", "frobnicate").CombinedOutput(); err == nil {
		t.Errorf("an unknown option: %s", out)
	}
	d.Skep(t, "umount", d.Mnt).OK(t)
	absent(t, d.Path("file"))
}

// A service manager that waits for it is told when the drive is there.
func TestForegroundSaysWhenReady(t *testing.T) {
	d := alone(t)
	at := filepath.Join(harness.Dir(t), "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	must(t, err)
	defer sock.Close()
	cmd := exec.Command(harness.Binary(), "--home", d.Home, "mount", "--foreground", d.Mnt)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+at)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	b := make([]byte, 100)
	must(t, sock.SetReadDeadline(time.Now().Add(time.Minute)))
	n, err := sock.Read(b)
	must(t, err)
	if string(b[:n]) != "READY=1" {
		t.Errorf("told %q", b[:n])
	}
	write(t, d.Path("file"), "content")
	d.Skep(t, "umount", d.Mnt).OK(t)
	must(t, cmd.Wait())
}
