package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/test/harness"
	"skep/test/posix/ordinary"
)

// Where a drive cannot be mounted, the message says why and what to do, and no daemon
// is left that was started for it.
func TestMountAtBadPlaces(t *testing.T) {
	asUser(t)
	d := alone(t)
	base := harness.Dir(t)
	write(t, filepath.Join(base, "file"), "mine")
	write(t, filepath.Join(base, "full", "file"), "mine")
	must(t, os.Mkdir(filepath.Join(d.Home, "inside"), 0o755))
	for name, tt := range map[string]struct {
		dir  string
		says []string
	}{
		"missing":       {base + "/missing", []string{"no such directory", "mkdir -p"}},
		"a file":        {base + "/file", []string{"not a directory"}},
		"below a file":  {base + "/file/x", []string{"not a directory"}},
		"not empty":     {base + "/full", []string{"not empty", "-o nonempty"}},
		"the home":      {d.Home, []string{"inside the daemon's own state directory"}},
		"in the home":   {d.Home + "/inside", []string{"inside the daemon's own state directory"}},
		"over the home": {filepath.Dir(d.Home), []string{"daemon's own state directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			d.Skep(t, "mount", tt.dir).Fails(t, 1, append(tt.says, tt.dir)...)
			d.Skep(t, "mount", "-o", "frobnicate", tt.dir).Fails(t, 2, "frobnicate")
			d.Skep(t, "mount", "-o", "uid=me", tt.dir).Fails(t, 2, "uid=NUMBER")
		})
	}
	if conf, err := os.ReadFile("/etc/fuse.conf"); ordinary.Is() && (err != nil || !strings.Contains(string(conf), "\nuser_allow_other")) {
		d.Skep(t, "mount", "-o", "allow_other", d.Mnt).Fails(t, 1, "user_allow_other")
	}
	if pid, running := harness.ServerPID(filepath.Join(d.Home, "control.sock")); running {
		t.Errorf("daemon %d was started for nothing", pid)
	}
	has(t, filepath.Join(base, "full", "file"), "mine")
	d.Skep(t, "mount", d.Mnt).OK(t)
	d.Skep(t, "umount", base+"/full").Fails(t, 1, "not a mount of this drive", base+"/full")
	write(t, d.Path("file"), "content")
	d.Skep(t, "mount", d.Mnt).Fails(t, 1, "mounted already", d.Mnt)
	other := filepath.Join(base, "other")
	must(t, os.Mkdir(other, 0o755))
	d.Skep(t, "mount", other).Fails(t, 1, "mounted already", d.Mnt)
	// Another drive at the same place.
	alone(t).Skep(t, "mount", d.Mnt).Fails(t, 1, "already mounted", "skep umount")
	has(t, d.Path("file"), "content")
	d.Skep(t, "umount", d.Mnt).OK(t)
	absent(t, d.Path("file"))
	d.Skep(t, "umount", d.Mnt).Fails(t, 1, d.Mnt)
	d.Skep(t, "mount", d.Mnt).OK(t)
	has(t, d.Path("file"), "content")
}

// A mountpoint may have spaces and the like in its path.
func TestMountAtAnOddPath(t *testing.T) {
	asUser(t)
	d := alone(t)
	dir := filepath.Join(harness.Dir(t), "my \\ drive\t")
	must(t, os.Mkdir(dir, 0o755))
	d.Skep(t, "mount", dir).OK(t)
	write(t, filepath.Join(dir, "file"), "content")
	d.Skep(t, "umount", dir).OK(t)
	absent(t, filepath.Join(dir, "file"))
	d.Skep(t, "mount", dir).OK(t) // and the test's end takes it away
}

func TestMountOverFiles(t *testing.T) {
	d := alone(t)
	write(t, d.Path("below"), "hidden")
	d.Skep(t, "mount", "-o", "nonempty", d.Mnt).OK(t)
	absent(t, d.Path("below"))
	write(t, d.Path("above"), "content")
	d.Skep(t, "umount", d.Mnt).OK(t)
	has(t, d.Path("below"), "hidden")
}

func TestNoHome(t *testing.T) {
	dir := harness.Dir(t)
	harness.Skep(t, "--home", dir+"/none", "mount", dir).Fails(t, 1, dir+"/none", "skep init", "skep recover")
	harness.Skep(t, "--home", dir+"/none", "mount", "--foreground", dir).Fails(t, 1, dir+"/none")
	harness.Skep(t, "--home", dir+"/none", "fsck").Fails(t, 1, dir+"/none")
	absent(t, dir+"/none")
}

// A peer's home has nothing to mount.
func TestMountAPeer(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	p := swarm.Peers[0]
	dir := harness.Dir(t)
	harness.Skep(t, "--home", p.Home, "mount", dir).Fails(t, 1, "no drive", "skep init")
	harness.Skep(t, "--home", p.Home, "sync").Fails(t, 1, "no drive")
	harness.Skep(t, "--home", p.Home, "status", "--json").OK(t)
	if !p.Running() {
		t.Error("the peer ended")
	}
}

// Whoever mounts while the daemon before is still ending waits for it, and can give
// up on that.
func TestMountAwaitsTheDaemonBefore(t *testing.T) {
	d := alone(t)
	for _, args := range [][]string{{d.Mnt}, {"--foreground", d.Mnt}} {
		release, err := home.Dir(d.Home).Lock() // as a daemon has it until it is gone
		must(t, err)
		impatient, ended := startMount(t, d, args...)
		must(t, impatient.Process.Signal(os.Interrupt))
		if err := ended(); err == nil {
			t.Error("a mount that was interrupted succeeded")
		}
		patient, ended := startMount(t, d, args...)
		release()
		d.WaitStatus(t, 60*time.Second, "the drive is mounted", func(s control.Status) bool { return len(s.Mounts) > 0 })
		d.Skep(t, "down").OK(t)
		if err := ended(); err != nil {
			t.Errorf("%s: %v", patient, err)
		}
	}
}

// startMount begins to mount a drive whose home somebody has, and returns when the
// command says that it waits.
func startMount(t *testing.T, d *harness.Device, args ...string) (cmd *exec.Cmd, ended func() error) {
	t.Helper()
	log := filepath.Join(harness.Dir(t), "mount.log")
	out, err := os.Create(log)
	must(t, err)
	defer out.Close()
	cmd = skep(append([]string{"--home", d.Home, "mount"}, args...)...)
	cmd.Stderr = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	harness.Until(t, 60*time.Second, "the command says that it waits", func() (bool, string) {
		b, err := os.ReadFile(log)
		must(t, err)
		return strings.Contains(string(b), "waiting for the daemon"), string(b)
	})
	return cmd, cmd.Wait
}

// What is mounted right after a daemon has ended with its mount stays mounted.
func TestMountAfterUnmount(t *testing.T) {
	d := alone(t)
	for i := range 4 {
		d.MountAlone(t)
		write(t, d.Path("file"), fmt.Sprint(i))
		d.Skep(t, "umount", d.Mnt).OK(t)
	}
	d.Skep(t, "mount", d.Mnt).OK(t)
	for range 20 { // the daemon before would take it away within some milliseconds
		has(t, d.Path("file"), "3")
		d.Skep(t, "status").OK(t)
	}
}

// A second daemon for a home is refused, and hurts the first one in nothing.
func TestTwoDaemons(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.MountAlone(t)
	write(t, d.Path("file"), "content")
	other := filepath.Join(harness.Dir(t), "other")
	must(t, os.Mkdir(other, 0o755))
	d.Skep(t, "mount", "--foreground", other).Fails(t, 1, "another skep daemon serves this home", d.Home, "skep down")
	d.Skep(t, "fsck").Fails(t, 1, "skep down")
	has(t, d.Path("file"), "content")
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	p := swarm.Peers[0]
	harness.Skep(t, "peer", "--home", p.Home).Fails(t, 1, "another skep daemon serves this home", p.Home)
	if !p.Running() {
		t.Error("the peer ended")
	}
}

// After kill -9, the dead mount is no obstacle, and nothing is lost.
func TestMountAfterACrash(t *testing.T) {
	asUser(t)
	d := alone(t)
	for _, content := range []string{"first", "second", "third"} {
		d.Skep(t, "mount", d.Mnt).OK(t)
		write(t, d.Path(content), content)
		_, err := os.Stat(d.Mnt)
		must(t, err)
		kill(t, d)
	}
	d.Skep(t, "mount", d.Mnt).OK(t)
	for _, content := range []string{"first", "second", "third"} {
		has(t, d.Path(content), content)
	}
	kill(t, d)
	// With nobody to ask, umount takes the dead mount away by itself.
	d.Skep(t, "umount", d.Mnt).OK(t)
	if _, err := os.Stat(d.Mnt); err != nil {
		t.Errorf("after umount: %v", err)
	}
	// By force, even from under a program that still has it open.
	d.Skep(t, "mount", d.Mnt).OK(t)
	open, err := os.Open(d.Mnt)
	must(t, err)
	defer open.Close()
	kill(t, d)
	d.Skep(t, "umount", d.Mnt).Fails(t, 1)
	d.Skep(t, "umount", "--force", d.Mnt).OK(t)
	if _, err := os.Stat(d.Mnt); err != nil {
		t.Errorf("after umount --force: %v", err)
	}
}

// The dead mount of a crash, which doctor tells of, is gone when the drive is mounted
// elsewhere. That of another drive is not; it can be taken away from there all the same.
func TestMountElsewhereAfterACrash(t *testing.T) {
	asUser(t)
	d, another := alone(t), alone(t)
	for _, d := range []*harness.Device{d, another} {
		d.Skep(t, "mount", d.Mnt).OK(t)
		kill(t, d)
		r := d.Skep(t, "doctor")
		r.Fails(t, 1, "one thing will not work")
		says(t, r.Stdout, "the mount at "+d.Mnt+" is dead", "skep mount "+d.Mnt, "skep umount "+d.Mnt)
	}
	other := harness.Dir(t)
	d.Skep(t, "mount", other).OK(t)
	write(t, filepath.Join(other, "file"), "content")
	if _, err := os.Stat(d.Mnt); err != nil {
		t.Errorf("mounted elsewhere: %v", err)
	}
	if _, err := os.Stat(another.Mnt); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("the dead mount of another drive: %v", err)
	}
	d.Skep(t, "doctor").OK(t)
	d.Skep(t, "umount", another.Mnt).OK(t)
	if _, err := os.Stat(another.Mnt); err != nil {
		t.Errorf("after umount: %v", err)
	}
	has(t, filepath.Join(other, "file"), "content")
	d.Skep(t, "umount", other).OK(t)
}

// What else is mounted below a dead mount stays, and so does that: a place is no reason to
// take away what is not the drive's.
func TestMountedBelowADeadMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an ordinary user mounts nothing else")
	}
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	below := d.Path("below")
	must(t, os.Mkdir(below, 0o755))
	must(t, syscall.Mount("none", below, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = syscall.Unmount(below, syscall.MNT_DETACH) })
	write(t, filepath.Join(below, "another's"), "content")
	kill(t, d)
	other := harness.Dir(t)
	d.Skep(t, "mount", other).OK(t)
	has(t, filepath.Join(below, "another's"), "content")
	must(t, syscall.Unmount(below, 0))
	d.Skep(t, "umount", other).OK(t)
	d.Skep(t, "umount", d.Mnt).OK(t)
}

// A mount is known by the place that it has now, if a folder above it got another name.
func TestFolderAboveAMountIsRenamed(t *testing.T) {
	asUser(t)
	d := alone(t)
	base := harness.Dir(t)
	before, now := filepath.Join(base, "before"), filepath.Join(base, "now")
	must(t, os.MkdirAll(filepath.Join(before, "drive"), 0o755))
	d.Skep(t, "mount", filepath.Join(before, "drive")).OK(t)
	must(t, os.Rename(before, now))
	at := filepath.Join(now, "drive")
	write(t, filepath.Join(at, "file"), "content")
	if out := d.Skep(t, "status").OK(t); !strings.Contains(out, at) || strings.Contains(out, "detached") {
		t.Errorf("status:\n%s", out)
	}
	d.Skep(t, "mount", d.Mnt).Fails(t, 1, "mounted already, at "+at)
	d.Skep(t, "umount", at).OK(t)
	d.Skep(t, "mount", at).OK(t)
	has(t, filepath.Join(at, "file"), "content")
	must(t, os.Rename(now, before))
	d.Skep(t, "down").OK(t)
	if _, err := os.ReadDir(filepath.Join(before, "drive")); err != nil {
		t.Errorf("after the end of the daemon: %v", err)
	}
}

// Symbolic links to a mount, and on the way to it, do as well as its own path; also
// names that are no text.
func TestPathsOfAMount(t *testing.T) {
	asUser(t)
	d := alone(t)
	base := harness.Dir(t)
	link, up := filepath.Join(base, "link"), filepath.Join(base, "up")
	must(t, os.Symlink(d.Mnt, link))
	must(t, os.Symlink(filepath.Dir(d.Mnt), up))
	through := filepath.Join(up, filepath.Base(d.Mnt))
	for _, at := range []string{link, through, d.Mnt} {
		d.Skep(t, "mount", at).OK(t)
		write(t, d.Path(".git", "b\xff\n"), "content")
		for _, way := range []string{d.Mnt, link, through} {
			out := d.Skep(t, "status", way, way+"/.git", way+"/.git/b\xff\n").OK(t)
			if n := strings.Count(out, ": local"); n != 3 || !strings.Contains(out, `/.git/b\xff\n": local`) {
				t.Errorf("mounted at %s, by way of %s:\n%s", at, way, out)
			}
			d.Skep(t, "pin", way+"/.git/b\xff\n").OK(t)
		}
		d.Skep(t, "umount", through).OK(t)
		absent(t, d.Path(".git"))
	}
}

// Symbolic links into the drive, within it, and out of it and back, lead to what status
// and pin are asked about. Of one in the drive, status tells itself.
func TestLinksInPaths(t *testing.T) {
	asUser(t)
	d := alone(t)
	base := harness.Dir(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	write(t, d.Path("a", "b", "file"), "content")
	into := filepath.Join(base, "into")
	must(t, os.Symlink(d.Path("a"), into))
	must(t, os.Symlink("a/b/../b", d.Path("within")))
	must(t, os.Symlink(into+"/b/", d.Path("back")))
	must(t, os.Symlink("round", d.Path("round")))
	must(t, os.Symlink(base, d.Path("out")))
	for _, dir := range []string{into + "/b", d.Path("within"), d.Path("back")} {
		out := d.Skep(t, "status", dir+"/file").OK(t)
		says(t, out, "File", dir+"/file: local", "7 B of it")
		says(t, d.Skep(t, "pin", dir).OK(t), d.Path("a", "b")+": pinned; 1 file, 7 B")
		d.Skep(t, "pin", "--remove", dir).OK(t)
	}
	says(t, d.Skep(t, "status", into).OK(t), "Folder", "into: local")
	for _, link := range []string{"within", "round", "out"} {
		says(t, d.Skep(t, "status", d.Path(link)).OK(t), "File", link+": local")
	}
	d.Skep(t, "status", d.Path("round", "file")).Fails(t, 1, "symbolic links")
	d.Skep(t, "pin", d.Path("out")).Fails(t, 1, "not in a mount")
	d.Skep(t, "status", d.Path("within", "none")).Fails(t, 1, "no")
	d.Skep(t, "umount", d.Mnt).OK(t)
}

// kill ends the daemon in the background of a device with SIGKILL.
func kill(t *testing.T, d *harness.Device) {
	t.Helper()
	pid, ok := harness.ServerPID(filepath.Join(d.Home, "control.sock"))
	if !ok {
		t.Fatal("no daemon")
	}
	must(t, unix.Kill(pid, unix.SIGKILL))
	harness.Until(t, 60*time.Second, "the daemon is gone", func() (bool, string) {
		_, ok := harness.ServerPID(filepath.Join(d.Home, "control.sock"))
		return !ok, ""
	})
}

// Where the drive is mounted already, what is not of the mount can be changed all the
// same: peers to join by, and the limit of the cache.
func TestMountAgain(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 2})
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	says(t, d.Skep(t, "status").OK(t), "no peer is known", "--bootstrap ADDRESS")
	write(t, d.Path("file"), "content")
	says(t, d.Skep(t, "mount", "--bootstrap", swarm.Bootstrap(), d.Mnt).OK(t), "already", "new settings")
	d.Sync(t)
	says(t, d.Skep(t, "mount", "--cache", "1G", d.Mnt).OK(t), "already", "new settings")
	if s := d.Status(t); s.Cache.Setting != 1<<30 {
		t.Errorf("the cache has a limit of %d bytes", s.Cache.Setting)
	}
	has(t, d.Path("file"), "content")
	other := filepath.Join(harness.Dir(t), "other")
	must(t, os.Mkdir(other, 0o755))
	for _, args := range [][]string{{d.Mnt}, {"--cache", "2G", "-o", "ro", d.Mnt}, {"--cache", "2G", other}} {
		d.Skep(t, append([]string{"mount"}, args...)...).Fails(t, 1, "mounted already, at "+d.Mnt)
	}
}

// A mount that is in use is not taken away, and who uses it is named.
func TestUmountInUse(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	write(t, d.Path("file"), "content")
	user := exec.Command("sleep", "1000")
	user.Dir = d.Mnt
	must(t, user.Start())
	ended := make(chan struct{})
	go func() { _ = user.Wait(); close(ended) }()
	defer func() { _ = user.Process.Kill(); <-ended }()
	d.Skep(t, "umount", d.Mnt).Fails(t, 1, "busy", "sleep")
	has(t, d.Path("file"), "content")
	r := d.Skep(t, "umount", "--force", d.Mnt)
	absent(t, d.Path("file"))
	if r.Code != 0 { // where the kernel does not let us end the connection
		r.Fails(t, 1, "programs still hold files of it", "skep down")
		_ = user.Process.Kill()
	}
	harness.Until(t, 60*time.Second, "the drive can be mounted again", func() (bool, string) {
		r := d.Skep(t, "mount", d.Mnt)
		return r.Code == 0, r.Stderr
	})
	has(t, d.Path("file"), "content")
}

// Whoever unmounts a drive from a folder within it, or is given a file of it, does not keep
// it busy.
func TestUmountFromWithin(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	write(t, d.Path("dir", "file"), "content")
	cmd := exec.Command("sh", "-c", `exec "$0" --home "$1" umount .. 5<file`, harness.Binary(), d.Home)
	cmd.Dir = d.Path("dir")
	harness.Run(t, cmd).OK(t)
	absent(t, d.Path("dir"))
}

// Where another mount namespace has a copy of the mount, or a program has it open that
// was detached from its place, umount ends, and it is said what still goes on.
func TestUmountHeldElsewhere(t *testing.T) {
	needRoot(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	write(t, d.Path("file"), "content")
	copied := exec.Command("sh", "-c", "echo there; exec sleep 1000")
	copied.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := copied.StdoutPipe()
	must(t, err)
	must(t, copied.Start())
	defer func() { _ = copied.Process.Kill(); _ = copied.Wait() }()
	_, err = out.Read(make([]byte, 8))
	must(t, err)
	r := d.Skep(t, "umount", d.Mnt)
	r.OK(t)
	says(t, r.Stderr, "still held", "skep down")
	detached := func() {
		t.Helper()
		absent(t, d.Path("file"))
		says(t, d.Skep(t, "status").OK(t), "detached from "+d.Mnt)
		d.Skep(t, "mount", d.Mnt).Fails(t, 1, "still held", "skep down")
	}
	detached()
	must(t, copied.Process.Kill())
	mountAgain := func() {
		t.Helper()
		harness.Until(t, 60*time.Second, "the drive can be mounted again", func() (bool, string) {
			r := d.Skep(t, "mount", d.Mnt)
			return r.Code == 0, r.Stderr
		})
		has(t, d.Path("file"), "content")
	}
	mountAgain()
	f, err := os.Open(d.Path("file"))
	must(t, err)
	must(t, unix.Unmount(d.Mnt, unix.MNT_DETACH))
	detached()
	must(t, f.Close())
	mountAgain()
}

// When down has returned, nothing is open any more on the disk of the home.
func TestDiskIsFreeAfterDown(t *testing.T) {
	needRoot(t)
	disk := smallDisk(t, "300m")
	d := harness.NewSwarm(t, harness.Options{}).NewDeviceAt(t, filepath.Join(disk, "home"))
	for range 5 {
		d.Skep(t, "mount", d.Mnt).OK(t)
		write(t, d.Path("file"), "content")
		d.Skep(t, "down").OK(t)
		must(t, unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) // fails while a file is open for writing
		must(t, unix.Mount("", disk, "", unix.MS_REMOUNT, ""))
	}
}

// While a drive is being recovered, a mount says that, and not that there is nothing.
func TestMountWhileAHomeIsBeingMade(t *testing.T) {
	dir := harness.Dir(t)
	release, err := home.Dir(filepath.Join(dir, "home")).Begin()
	must(t, err)
	defer release()
	for _, args := range []string{"mount " + dir, "mount --foreground " + dir, "status", "sync", "fsck", "init --words-file " + dir + "/words"} {
		harness.Skep(t, append([]string{"--home", dir + "/home"}, strings.Fields(args)...)...).Fails(t, 1, "is making this home", "wait")
	}
	absent(t, dir+"/words")
}

// Ending the daemon takes its mount away, and loses nothing; it is said what nobody
// else has yet.
func TestDown(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	content := strings.Repeat("content", 200_000)
	write(t, d.Path("file"), content)
	r := d.Skep(t, "down")
	r.OK(t)
	says(t, r.Stderr, "On this device only: ", "(1.3 MiB)", "mounted again")
	absent(t, d.Path("file"))
	d.Skep(t, "status").Fails(t, 1, "no skep daemon is running")
	d.Skep(t, "fsck").OK(t)
	ended := func(what string, times int) { // in the foreground
		t.Helper()
		<-d.Process().Ended()
		absent(t, d.Path("file"))
		log, err := os.ReadFile(d.Log())
		must(t, err)
		if n := strings.Count(string(log), "On this device only: "); n != times {
			t.Errorf("%s: it was said %d times what is on this device only, not %d:\n%s", what, n, times, log)
		}
	}
	d.MountAlone(t)
	has(t, d.Path("file"), content)
	d.Process().Signal(syscall.SIGINT)
	ended("Ctrl-C", 1)
	d.MountAlone(t)
	r = d.Skep(t, "umount", d.Mnt) // the daemon ends with it
	r.OK(t)
	says(t, r.Stderr, "On this device only: ", "mounted again")
	ended("umount", 2)
	d.Skep(t, "mount", d.Mnt).OK(t)
	r = d.Skep(t, "umount", d.Mnt) // it goes on
	r.OK(t)
	says(t, r.Stderr, "On this device only: ", "goes on uploading")
}

// within runs the binary in a mount namespace that a script prepares.
func within(t *testing.T, script string, args ...string) harness.Result {
	t.Helper()
	needRoot(t)
	cmd := exec.Command("sh", append([]string{"-c", script + ` && exec "$@"`, "sh", harness.Binary()}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return harness.Run(t, cmd)
}

// A system without FUSE: the drive still exists, and is mounted when there is
// one.
func TestNoFUSE(t *testing.T) {
	d := alone(t)
	for _, how := range [][]string{{"mount", "--foreground"}, {"mount"}} {
		r := within(t, "mount -t tmpfs none /dev", append(append([]string{"--home", d.Home}, how...), d.Mnt)...)
		r.Fails(t, 1, "no FUSE", "modprobe fuse", d.Mnt)
	}
	d.Skep(t, "down").OK(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
}

// An ordinary user without fusermount3, and one who may not open /dev/fuse.
func TestUserWhoMayNotMount(t *testing.T) {
	needRoot(t)
	d := alone(t)
	for _, f := range []string{d.Home, d.Mnt, d.Words} {
		must(t, exec.Command("chown", "-R", "65534:65534", f).Run())
	}
	for name, tt := range map[string]struct {
		script string
		says   []string
	}{
		"no fusermount3":    {"for f in /bin/fusermount* /usr/bin/fusermount*; do mount --bind /dev/null $f; done", []string{"fusermount3 is missing", "fuse3"}},
		"no right to /dev":  {"touch " + d.Home + ".node && mknod " + d.Home + ".fuse c 10 229 && chmod 600 " + d.Home + ".fuse && mount --bind " + d.Home + ".fuse /dev/fuse", []string{"/dev/fuse"}},
		"another's place":   {"mount -t tmpfs -o mode=0755 none " + d.Mnt, []string{"permission denied", d.Mnt}},
		"unreachable place": {"mkdir -p " + d.Mnt + ".d/x && chmod 700 " + d.Mnt + ".d", []string{"permission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := d.Mnt
			if name == "unreachable place" {
				dir += ".d/x"
			}
			script := tt.script
			if !strings.Contains(script, "/dev/fuse") {
				script = "chmod 666 /dev/fuse; " + script
			}
			r := asNobody(t, script, "--home", d.Home, "mount", "--foreground", dir)
			r.Fails(t, 1, tt.says...)
		})
	}
}

// A home that is another user's is called so, by every command, and is as it was.
func TestAnotherUsersHome(t *testing.T) {
	needRoot(t)
	d := alone(t)
	d.MountAlone(t)
	write(t, d.Path("file"), "content")
	dir := harness.Dir(t)
	mine := filepath.Join(dir, "words")
	write(t, mine, string(harness.NewWords()))
	must(t, os.Chmod(dir, 0o777))
	for _, args := range []string{"status", "status --json", "sync", "down", "umount " + dir, "mount " + dir, "mount --foreground " + dir, "fsck",
		"repair pause", "pin --list", "peer", "init --words-file " + dir + "/new", "recover --words-file " + mine + " --bootstrap " + goodAddr} {
		t.Run(args, func(t *testing.T) {
			r := asNobody(t, "true", append([]string{"--home", d.Home}, strings.Fields(args)...)...)
			r.Fails(t, 1, d.Home, "permission denied", "become the user whom it belongs to")
		})
	}
	r := asNobody(t, "true", "--home", d.Home, "doctor")
	r.Fails(t, 1, "will not work")
	says(t, r.Stdout, d.Home+" is another user's", "cannot be asked by this user")
	absent(t, dir+"/new")
	has(t, d.Path("file"), "content")
	d.Status(t)
	nowhere := filepath.Join(filepath.Dir(d.Home), "not", "allowed")
	asNobody(t, "true", "--home", nowhere, "init", "--words-file", dir+"/new").Fails(t, 1, filepath.Dir(nowhere), "permission denied")
	absent(t, dir+"/new")
}

// asNobody runs the binary as an ordinary user, in a mount namespace that root
// prepares with a script.
func asNobody(t *testing.T, script string, args ...string) harness.Result {
	t.Helper()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("setpriv is not installed")
	}
	cmd := exec.Command("sh", append([]string{"-c", "{ " + script + `; } && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`, "sh", harness.Binary()}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return harness.Run(t, cmd)
}
