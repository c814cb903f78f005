package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/test/harness"
	"skep/test/posix/ordinary"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needRoot skips a test that must mount something other than a drive, or
// become somebody else.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// asUser runs the calling test a second time as an ordinary user, with small disks
// of these sizes.
func asUser(t *testing.T, disks ...string) {
	if !ordinary.Is() && os.Geteuid() == 0 {
		t.Run("as an ordinary user", ordinary.RunNamed(strings.SplitN(t.Name(), "/", 2)[0], disks...))
	}
}

// alone is a device without any swarm.
func alone(t *testing.T, args ...string) *harness.Device {
	t.Helper()
	return harness.NewSwarm(t, harness.Options{}).NewDevice(t, args...)
}

// write writes a file and checks that it can be read.
func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
	has(t, path, content)
}

// has checks the content of a file.
func has(t testing.TB, path, content string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if string(b) != content {
		t.Errorf("%s: %d bytes, not the %d that were written", path, len(b), len(content))
	}
}

// mode checks the permissions of a file.
func mode(t testing.TB, path string, want os.FileMode) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
	} else if got := fi.Mode().Perm(); got != want {
		t.Errorf("%s has mode %o, want %o", path, got, want)
	}
}

// absent checks that there is nothing at a path.
func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", path, err)
	}
}

// smallDisk mounts a file system of some size at a new directory. An ordinary user
// finds the one that asUser was told of.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if ordinary.Is() {
		return ordinary.Disk(size)
	}
	needRoot(t)
	dir := filepath.Join(harness.Dir(t), "disk")
	must(t, os.Mkdir(dir, 0o700))
	must(t, unix.Mount("skep-test", dir, "tmpfs", 0, "size="+size+",mode=0700"))
	return dir
}

// skep prepares a run of the binary that is not simply run.
func skep(args ...string) *exec.Cmd { return exec.Command(harness.Binary(), args...) }

// object decodes what a command wrote for scripts.
func object(t testing.TB, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return v
}

// fields checks that a list is not empty and that its elements have fields.
func fields(t testing.TB, list any, names ...string) {
	t.Helper()
	l, _ := list.([]any)
	if len(l) == 0 {
		t.Errorf("a list that should have %q is %v", names, list)
	}
	for _, e := range l {
		for _, name := range names {
			if m, _ := e.(map[string]any); m[name] == nil {
				t.Errorf("%v has no %s", e, name)
			}
		}
	}
}
