package cli

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
	out, err := exec.Command(helper, d.Home, d.Mnt, "-s", "-o", "rw,nofail,_netdev,noatime,frobnicate").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, d.Path("file"), "content")
	for _, x := range []struct {
		options, says string
		status        int // as mount(8) has it
	}{
		{"frobnicate", "frobnicate", 1},
		{"rw", "mounted already", 32},
	} {
		cmd := exec.Command(helper, d.Home, d.Mnt, "-o", x.options)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != x.status || !strings.Contains(string(out), x.says) {
			t.Errorf("-o %s: exit status %d, %s", x.options, cmd.ProcessState.ExitCode(), out)
		}
	}
	remountHelper(t, d, helper)
	d.Skep(t, "umount", d.Mnt).OK(t)
	absent(t, d.Path("file"))
}

// remountHelper has a mount changed as "mount -o remount" does: with the source and
// the options that the table of mounts has, or with less.
func remountHelper(t *testing.T, d *harness.Device, helper string) {
	remount := func(options string) (string, error) {
		out, err := exec.Command(helper, "skep", d.Mnt, "-t", "fuse.skep", "-o", options).CombinedOutput()
		return string(out), err
	}
	const kernels = ",user_id=0,group_id=0,default_permissions,max_read=1048576"
	if os.Geteuid() != 0 {
		if out, err := remount("ro,nosuid,nodev,noatime,remount" + kernels); err == nil || !strings.Contains(out, "CAP_SYS_ADMIN") {
			t.Errorf("as an ordinary user: %v, %s", err, out)
		}
		return
	}
	for _, step := range []struct {
		options, says string
		open          error
	}{
		{"ro,nosuid,nodev,noatime,remount" + kernels, "", syscall.EROFS},
		{"rw,nosuid,nodev,noatime,remount" + kernels, "", nil},
		{"ro,remount", "", syscall.EROFS},
		{"rw,remount,relatime", "access times", syscall.EROFS},
		{"rw,remount,frobnicate", "frobnicate", syscall.EROFS},
		{"remount,rw", "", nil},
	} {
		if out, err := remount(step.options); (err == nil) != (step.says == "") || !strings.Contains(out, step.says) {
			t.Errorf("%s: %v, %s", step.options, err, out)
		}
		f, err := os.OpenFile(d.Path("file"), os.O_RDWR, 0)
		if !errors.Is(err, step.open) {
			t.Errorf("after %s: %v, want %v", step.options, err, step.open)
		}
		if err == nil {
			must(t, f.Close())
		}
	}
}

// mount(8) sees that the drive of a line of fstab is mounted, by what the line begins with,
// whatever that has in it, and passes it over.
func TestMountIsKnownToMount8(t *testing.T) {
	asUser(t)
	d := harness.NewSwarm(t, harness.Options{}).NewDeviceAt(t, filepath.Join(harness.Dir(t), `my drive's, \home`))
	helper, fstab := filepath.Join(harness.Dir(t), "mount.fuse.skep"), filepath.Join(harness.Dir(t), "fstab")
	must(t, os.Symlink(harness.Binary(), helper))
	line := strings.NewReplacer(`\`, `\134`, " ", `\040`).Replace(d.Home) + " " + d.Mnt + " fuse.skep nofail 0 0\n"
	must(t, os.WriteFile(fstab, []byte(line), 0o644))
	if out, err := exec.Command(helper, d.Home, d.Mnt, "-o", "rw,nofail").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, d.Path("file"), "content")
	if out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", d.Mnt).Output(); err != nil || strings.TrimSpace(string(out)) != d.Home {
		t.Errorf("the source is %q, %v", out, err)
	}
	if s := d.Status(t); len(s.Mounts) != 1 || s.Mounts[0] != d.Mnt {
		t.Errorf("mounted at %q", s.Mounts)
	}
	if os.Geteuid() == 0 { // as it reads another fstab
		if out, err := exec.Command("mount", "-a", "-T", fstab).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("mount -a: %v: %s", err, out)
		}
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
