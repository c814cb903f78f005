package posix

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFileManager opens a folder of the drive in a file manager on a display of
// its own, copies everything in it into another one and moves it to the trash,
// by the keys that people press.
func TestFileManager(t *testing.T) {
	if !thorough() {
		t.Skip("needs a desktop: make posix")
	}
	needs(t, "Xvfb", "dbus-run-session", "pcmanfm", "xdotool")
	d := newDrive(t, config{Passthrough: true})
	must(t, os.MkdirAll(d.path("photos"), 0o755))
	must(t, os.MkdirAll(d.path("copies"), 0o755))
	for i := range 30 {
		photo(t, d.path(fmt.Sprintf("photos/picture %02d.jpg", i)))
	}
	desk := newDesktop(t, d)
	desk.open("photos")
	desk.picture("opened")
	desk.press("ctrl+a", "ctrl+c")
	desk.open("copies")
	desk.press("ctrl+v")
	desk.until("all are copied", func() bool { return count(d.path("copies")) == 30 })
	desk.open("photos")
	desk.press("ctrl+a", "Delete", "Return")
	desk.until("all are in the trash", func() bool { return count(d.path("photos")) == 0 })
	trash := d.path(fmt.Sprintf(".Trash-%d/files", os.Getuid()))
	if n := count(trash); n != 30 {
		t.Errorf("%d files are in %s, want 30", n, trash)
	}
	d.run("diff", "-r", "copies", trash)
}

// TestGIO does what file managers do, by the library that most of them use.
func TestGIO(t *testing.T) {
	if !thorough() {
		t.Skip("needs a desktop: make posix")
	}
	needs(t, "gio", "dbus-run-session")
	d := newDrive(t, config{Passthrough: true})
	must(t, os.WriteFile(d.path("file"), bytes.Repeat([]byte("x"), 100_000), 0o644))
	gio := func(args ...string) string {
		return d.run("env", append([]string{noGvfsMount, "dbus-run-session", "--", "gio"}, args...)...)
	}
	if out := gio("info", "-f", "."); !strings.Contains(out, "filesystem::free: ") || strings.Contains(out, "filesystem::free: 0\n") {
		t.Errorf("room: %s", out)
	}
	gio("copy", "file", "copy")
	gio("move", "copy", "moved")
	gio("rename", "moved", "renamed")
	gio("set", "-t", "string", "renamed", "metadata::emblems", "important")
	gio("trash", "renamed")
	if out := gio("list", "-h", "."); !strings.Contains(out, fmt.Sprintf(".Trash-%d", os.Getuid())) {
		t.Errorf("no trash at the top of the drive: %s", out)
	}
	d.run("cmp", "file", fmt.Sprintf(".Trash-%d/files/renamed", os.Getuid()))
}

// noGvfsMount has a session not mount the folders of its own library: that mount may
// outlive the session, and keep open what the test reads to the end.
const noGvfsMount = "GVFS_DISABLE_FUSE=1"

func count(dir string) int {
	entries, _ := os.ReadDir(dir)
	return len(entries)
}

// photo makes a picture as large as a small photograph.
func photo(t *testing.T, path string) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 800, 600))
	for x := range 800 {
		for y := range 600 {
			img.Set(x, y, color.RGBA{uint8(x * y), uint8(x), uint8(y), 255})
		}
	}
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, img, nil))
	must(t, os.WriteFile(path, b.Bytes(), 0o644))
}

// desktop is a display with a file manager.
type desktop struct {
	t       *testing.T
	d       *drive
	env     []string
	display string
}

func newDesktop(t *testing.T, d *drive) *desktop {
	t.Helper()
	home := t.TempDir()
	r, w, err := os.Pipe()
	must(t, err)
	x := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1000x700x24", "-nolisten", "tcp")
	x.ExtraFiles = []*os.File{w}
	must(t, x.Start())
	t.Cleanup(func() { _ = x.Process.Kill(); _ = x.Wait() })
	_ = w.Close()
	b := make([]byte, 20)
	n, err := r.Read(b) // when the display is there
	must(t, err)
	display := ":" + strings.TrimSpace(string(b[:n]))
	return &desktop{t: t, d: d, display: display, env: append(os.Environ(), noGvfsMount, "DISPLAY="+display, "HOME="+home,
		"XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "XDG_DATA_HOME="+home, "XDG_RUNTIME_DIR="+home)}
}

// open shows a folder in a window of its own.
func (k *desktop) open(folder string) {
	k.t.Helper()
	cmd := exec.Command("dbus-run-session", "--", "pcmanfm", "--new-win", k.d.path(folder))
	cmd.Env = k.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.WaitDelay = new(bytes.Buffer), time.Minute // a buffer has Wait wait for all that write to it
	must(k.t, cmd.Start())
	k.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); _ = cmd.Wait() })
	k.until("a window shows "+folder, func() bool { return k.tool("search", "--name", "^"+folder+"$") == nil })
	must(k.t, k.tool("search", "--sync", "--name", "^"+folder+"$", "windowfocus", "--sync"))
}

func (k *desktop) press(keys ...string) {
	k.t.Helper()
	for _, key := range keys {
		time.Sleep(time.Second) // nothing tells when a window has taken a key
		must(k.t, k.tool("key", key))
	}
}

func (k *desktop) tool(args ...string) error {
	cmd := exec.Command("xdotool", args...)
	cmd.Env = k.env
	return cmd.Run()
}

func (k *desktop) until(what string, done func() bool) {
	k.t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			k.picture("failed")
			k.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// picture keeps what is on the display, where SKEP_PICTURES says.
func (k *desktop) picture(name string) {
	dir := os.Getenv("SKEP_PICTURES")
	if dir == "" {
		return
	}
	cmd := exec.Command("import", "-window", "root", filepath.Join(dir, name+".png"))
	cmd.Env = k.env
	if out, err := cmd.CombinedOutput(); err != nil {
		k.t.Logf("no picture: %v: %s", err, out)
	}
}
