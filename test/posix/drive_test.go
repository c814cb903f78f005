package posix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/fs/mount"
	"skep/test/posix/ordinary"
	"skep/test/served"
)

func TestMain(m *testing.M) {
	if c, yes := served.Asked(); yes {
		served.Main(c)
	}
	if os.Getenv(scriptEnv) != "" {
		if err := interpret(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	end, err := useExt4()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	code := ordinary.Main(m)
	end()
	os.Exit(code)
}

// config says how a drive is served.
type config = served.Config

// drive is a mounted drive and the process that serves it.
type drive struct {
	t    *testing.T
	conf config
	*served.Server
	root string // the mount point
}

// newDrive mounts an empty drive for the time of the test.
func newDrive(t *testing.T, c config) *drive {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("this machine has no FUSE: %v", err)
	}
	base, err := os.MkdirTemp("", "skep-posix-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	c.Stock = c.Stock || os.Getenv(stockEnv) != ""
	c.Dir, c.Home = filepath.Join(base, "drive"), filepath.Join(base, "home")
	must(t, os.Mkdir(c.Dir, 0o755))
	must(t, os.Mkdir(c.Home, 0o700))
	d := &drive{t: t, conf: c, root: c.Dir}
	t.Cleanup(d.end)
	d.start()
	return d
}

func (d *drive) start() {
	d.t.Helper()
	s, err := served.Start(d.conf)
	must(d.t, err)
	d.Server = s
}

// unmount unmounts politely and waits for the server.
func (d *drive) unmount() {
	d.t.Helper()
	must(d.t, mount.Unmount(d.t.Context(), d.root))
	d.wait()
}

func (d *drive) wait() {
	d.t.Helper()
	if err := d.Wait(); err != nil {
		d.t.Error(err)
	}
}

// remount unmounts and mounts again: nothing is remembered but what is stored.
func (d *drive) remount() {
	d.t.Helper()
	d.unmount()
	d.start()
}

// end takes away whatever is left.
func (d *drive) end() {
	if d.Server != nil {
		d.End()
	}
}

// path is the path of a name on the drive.
func (d *drive) path(name string) string { return filepath.Join(d.root, name) }

// run runs a program in the drive and returns what it says.
func (d *drive) run(name string, args ...string) string {
	d.t.Helper()
	out, err := d.try(name, args...)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (d *drive) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = d.root
	cmd.Env = append(os.Environ(), "HOME="+d.conf.Home, "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// requests returns how often each request arrived because of fn; the drive must
// be traced. A file's RELEASE comes after close has returned, so requests waits
// until all are closed. When the kernel forgets is its own affair, and left out.
func (d *drive) requests(fn func()) map[string]int {
	d.t.Helper()
	fd, err := unix.Open(d.root, unix.O_PATH, 0)
	must(d.t, err)
	defer unix.Close(fd)
	before, err := os.ReadFile(d.conf.Trace)
	must(d.t, err)
	fn()
	var n map[string]int
	for range 1000 {
		must(d.t, unix.Fstatfs(fd, new(unix.Statfs_t))) // always a request, behind the others
		after, err := os.ReadFile(d.conf.Trace)
		must(d.t, err)
		n = countTrace(string(after[len(before):]))
		if n["OPEN"]+n["CREATE"] == n["RELEASE"] {
			break
		}
	}
	return n
}

func countTrace(trace string) map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(trace) {
		_, rest, ok := strings.Cut(line, `msg="rx `)
		if f := strings.Fields(rest); ok && len(f) > 1 {
			n[f[1]]++
		}
	}
	for _, other := range []string{"STATFS", "FORGET", "BATCH_FORGET"} {
		delete(n, other)
	}
	return n
}

// stockEnv has go-fuse's own request loop serve all drives, for comparison.
const stockEnv = "SKEP_TEST_STOCK"

// variants runs a test with files passed through and with files that go through
// the daemon; as an ordinary user, the kernel refuses the former, which must
// make no difference.
func variants(t *testing.T, test func(t *testing.T, d *drive)) {
	t.Helper()
	withOptions(t, "", test)
}

// sharedVariants lets other users in, if this one is root.
func sharedVariants(t *testing.T, test func(t *testing.T, d *drive)) {
	t.Helper()
	options := ""
	if os.Geteuid() == 0 {
		options = "allow_other"
	}
	withOptions(t, options, test)
}

func withOptions(t *testing.T, options string, test func(t *testing.T, d *drive)) {
	t.Helper()
	offered := "passed"
	if !mount.MayPassthrough() {
		offered = "refused"
	}
	for name, c := range map[string]config{offered: {Passthrough: true, Options: options}, "through": {Options: options}} {
		t.Run(name, func(t *testing.T) { test(t, newDrive(t, c)) })
	}
}

// asUser runs the calling test again as an ordinary user, unless it is.
func asUser(t *testing.T) {
	t.Helper()
	if !ordinary.Is() && os.Geteuid() == 0 {
		t.Run("ordinary", ordinary.RunNamed(t.Name()))
	}
}

// needs skips a test for which a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
