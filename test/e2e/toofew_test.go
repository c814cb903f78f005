package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// TestTooFew looks at a drive whose swarm is silent, and then gone for good:
// what is on this device works on, what is not fails in time and says why.
func TestTooFew(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 10 * time.Second})
	f := &tooFew{swarm: swarm, source: filepath.Join(harness.Dir(t), "source")}
	must(t, os.Mkdir(f.source, 0o755))
	harness.Files(t, f.source, files, 500_000, 7)
	first := swarm.NewDevice(t)
	first.Mount(t)
	harness.Rsync(t, "-a", f.source+"/", first.Path("tree")+"/")
	first.Sync(t)
	numbers := harness.Inodes(t, first.Path("tree", "d00"))
	first.Destroy(t)
	f.device = swarm.Recover(t, first.Words)
	f.device.Mount(t)
	f.look(t)
	if now := harness.Inodes(t, f.path(0)); !maps.Equal(now, numbers) {
		t.Errorf("inode numbers %v; on the device that is gone: %v", now, numbers)
	}

	s := steps{t}
	s.step("swarm that speaks", f.speaks)
	s.step("silent swarm", f.silent)
	s.step("it speaks again", f.speaksAgain)
	s.step("too few holders", f.gone)
}

// files is how many there are, in eight directories.
const files = 48

type tooFew struct {
	swarm  *harness.Swarm
	device *harness.Device
	source string

	here, glanced time.Duration // what useHere and glances took while the swarm spoke
}

// look lists all directories but one, and reads the files of one.
func (f *tooFew) look(t *testing.T) {
	t.Helper()
	for i := range 7 {
		_, err := os.ReadDir(f.path(i))
		must(t, err)
	}
	f.readable(t, 0)
}

func (f *tooFew) path(dir int, name ...string) string {
	return filepath.Join(append([]string{f.device.Path("tree"), fmt.Sprintf("d%02d", dir)}, name...)...)
}

// readable checks that the files of a directory, or one of them, can be read.
func (f *tooFew) readable(t *testing.T, dir int, name ...string) {
	t.Helper()
	want := filepath.Join(append([]string{f.source, fmt.Sprintf("d%02d", dir)}, name...)...)
	if len(name) > 0 {
		harness.Run(t, exec.Command("cmp", want, f.path(dir, name...))).OK(t)
		return
	}
	harness.Same(t, want, f.path(dir))
}

// speaks takes the time of what is to take no longer offline.
func (f *tooFew) speaks(t *testing.T) {
	begin := time.Now()
	f.useHere(t)
	f.here = time.Since(begin)
	begin = time.Now()
	f.glances(t)
	f.glanced = time.Since(begin)
}

// atOnce is how long something may take that waits for nobody, by how long it took while
// the swarm spoke: this machine may do something else, too.
func atOnce(usual time.Duration) time.Duration { return 5*time.Second + 4*usual }

// offline checks that what is on this device is there at once.
func (f *tooFew) offline(t *testing.T) {
	t.Helper()
	harness.Quick(t, atOnce(f.here), "ls, df and reading offline", func() { f.useHere(t) })
}

// useHere lists, reads, writes and renames what is on this device.
func (f *tooFew) useHere(t *testing.T) {
	t.Helper()
	for i := range 7 {
		list := harness.Run(t, exec.Command("ls", "-l", f.path(i))).OK(t)
		if n := strings.Count(list, " f00"); n != files/8 {
			t.Errorf("ls shows %d of %d files:\n%s", n, files/8, list)
		}
	}
	f.readable(t, 0)
	harness.Run(t, exec.Command("df", f.device.Mnt)).OK(t)
	must(t, os.WriteFile(f.device.Path("written offline"), []byte("x"), 0o644))
	must(t, os.Remove(f.device.Path("written offline")))
	must(t, os.WriteFile(f.device.Path("new"), []byte("x"), 0o644))
	f.trash(t, f.device.Path("new"), f.path(5, "f0013"))
}

// trash moves files to where a file manager keeps what was deleted, whether their
// content is here or not, and back.
func (f *tooFew) trash(t *testing.T, names ...string) {
	t.Helper()
	can := f.device.Path(fmt.Sprintf(".Trash-%d", os.Getuid()))
	must(t, os.MkdirAll(filepath.Join(can, "files"), 0o700))
	for _, name := range names {
		there := filepath.Join(can, "files", filepath.Base(name))
		must(t, os.Rename(name, there))
		_, err := os.Stat(there)
		must(t, err)
		must(t, os.Rename(there, name))
	}
	must(t, os.RemoveAll(can))
}

// silent stops all peers, so that their connections are there but nothing
// comes: a program that waits for content can be interrupted at once.
func (f *tooFew) silent(t *testing.T) {
	for _, p := range f.swarm.Peers {
		p.Process().Signal(syscall.SIGSTOP)
	}
	f.interrupted(t, f.path(1, "f0001"))
	f.window(t)
	f.offline(t)
	f.copyIn(t)
	// Without Ctrl-C, it ends by itself.
	if !f.fails(t, f.path(2, "f0010")) {
		t.Error("what is with a silent swarm could be read")
	}
}

// window does what a file manager does while it makes thumbnails of files that do not
// come: it looks around, and none of that waits. The thumbnails fail by themselves.
func (f *tooFew) window(t *testing.T) {
	t.Helper()
	const thumbnails = 12
	failed := make(chan error, thumbnails)
	var all []int
	for i := range thumbnails {
		cmd := exec.Command("tail", "-c", fmt.Sprint(10_000*(i+1)), f.path(3, fmt.Sprintf("f%04d", 3+i%6*8)))
		must(t, cmd.Start())
		all = append(all, cmd.Process.Pid)
		go func() { failed <- cmd.Wait() }()
	}
	harness.Until(t, time.Minute, "thumbnails wait for the drive", func() (bool, string) {
		return slices.ContainsFunc(all, waits) || len(failed) > 0, ""
	})
	harness.Quick(t, atOnce(f.glanced), "looking at a folder beside thumbnails", func() { f.glances(t) })
	begin := time.Now()
	for range thumbnails {
		if err := <-failed; err == nil {
			t.Error("the end of a file was read that is with a silent swarm")
		}
	}
	if took := time.Since(begin); took > patience {
		t.Errorf("reading the ends of files failed after %v", took)
	}
}

// glances are what a file manager does in some seconds.
func (f *tooFew) glances(t *testing.T) {
	t.Helper()
	for range 100 {
		f.glance(t)
	}
}

// glance lists a folder whose files are here, looks at each file, reads a piece of it,
// and asks for the room.
func (f *tooFew) glance(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(f.path(0))
	must(t, err)
	for _, e := range entries {
		_, err := e.Info()
		must(t, err)
		file, err := os.Open(f.path(0, e.Name()))
		must(t, err)
		if n, err := file.ReadAt(make([]byte, 4096), 100_000); n != 4096 {
			t.Errorf("%d bytes of %s: %v", n, e.Name(), err)
		}
		must(t, file.Close())
	}
	must(t, syscall.Statfs(f.device.Mnt, new(syscall.Statfs_t)))
}

// copyIn copies a file in, and fsyncs it: no write waits for the swarm, so that what is
// shown of its progress moves, and what is left for the end is no more than that.
func (f *tooFew) copyIn(t *testing.T) {
	t.Helper()
	piece := harness.Noise(rand.New(rand.NewPCG(5, 5)), 1<<20)
	harness.Quick(t, 20*time.Second, "copying 64 MiB in", func() {
		to, err := os.Create(f.device.Path("copied"))
		must(t, err)
		for range 64 {
			_, err := to.Write(piece)
			must(t, err)
		}
		must(t, to.Sync())
		must(t, to.Close())
	})
	must(t, os.Remove(f.device.Path("copied")))
}

// interrupted reads a file that does not come, and ends that as Ctrl-C does, before it
// ends by itself, ten seconds after it began.
func (f *tooFew) interrupted(t *testing.T, file string) {
	cat := exec.Command("cat", file)
	must(t, cat.Start())
	waitsForDrive(t, cat.Process.Pid)
	begin := time.Now()
	must(t, cat.Process.Signal(os.Interrupt))
	_ = cat.Wait()
	if took := time.Since(begin); took > 7*time.Second {
		t.Errorf("cat ended %v after Ctrl-C", took)
	}
}

// waitsForDrive waits until a process is in a request of a drive that is not
// answered.
func waitsForDrive(t *testing.T, pid int) {
	t.Helper()
	harness.Until(t, 60*time.Second, "cat waits for the drive", func() (bool, string) { return waits(pid), "" })
}

// waits reports whether a process is in such a request.
func waits(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return strings.Contains(string(b), "fuse") || strings.Contains(string(b), "folio")
}

func (f *tooFew) speaksAgain(t *testing.T) {
	for _, p := range f.swarm.Peers {
		p.Process().Signal(syscall.SIGCONT)
	}
	harness.Until(t, 60*time.Second, "the file can be read again", func() (bool, string) {
		_, err := os.ReadFile(f.path(1, "f0001"))
		return err == nil, fmt.Sprint(err)
	})
	f.readable(t, 1)
}

// patience is how long reading what is lost may take until it fails: ten
// seconds after the last that came, on a machine that does something else, too.
const patience = 40 * time.Second

// gone kills all peers but one: fewer than k shards are left. What was fetched
// along with its neighbours may still be read; all else fails.
func (f *tooFew) gone(t *testing.T) {
	for _, p := range f.swarm.Peers[1:] {
		p.Destroy(t)
	}
	lost := ""
	for i := range files {
		dir, name := i%8, fmt.Sprintf("f%04d", i)
		if dir < 2 || dir == 7 {
			continue // resident, or not listed before
		}
		if !f.fails(t, f.path(dir, name)) {
			f.readable(t, dir, name)
		} else if lost == "" {
			lost = f.path(dir, name)
		}
	}
	if lost == "" {
		t.Fatal("nothing is lost")
	}
	f.named(t, lost)
	f.device.WaitStatus(t, time.Minute, "status counts packs that cannot be read", func(s control.Status) bool {
		return s.PacksLost > 0
	})
	f.offline(t)
	f.readable(t, 1)
}

// fails reads a file and reports whether that failed, as it must do in time.
func (f *tooFew) fails(t *testing.T, file string) bool {
	t.Helper()
	r := harness.Run(t, exec.Command("cat", file))
	if r.Took > patience {
		t.Errorf("reading what is lost ended after %v", r.Took)
	}
	rel, err := filepath.Rel(f.device.Path("tree"), file)
	must(t, err)
	if !f.begins(t, rel, r.Stdout) {
		t.Errorf("%s: %d wrong bytes", rel, len(r.Stdout))
	}
	return r.Code != 0
}

// begins reports whether bytes are the beginning of a file of the source.
func (f *tooFew) begins(t *testing.T, name, got string) bool {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(f.source, name))
	must(t, err)
	return strings.HasPrefix(string(want), got)
}

// counted is how the log says how many shards are missing.
var counted = regexp.MustCompile(`\d+ of \d+ shards are needed, \d+ came, \d+ are lost, \d+ are out of reach`)

// named checks that the log names a file that cannot be read, and says how many
// shards are missing, and that the status says so of its packs.
func (f *tooFew) named(t *testing.T, file string) {
	t.Helper()
	log, err := os.ReadFile(f.device.Log())
	must(t, err)
	if !slices.ContainsFunc(strings.Split(string(log), "\n"), func(line string) bool {
		return strings.Contains(line, filepath.Base(file)) && counted.MatchString(line)
	}) {
		t.Errorf("the log does not name %s with how many shards are missing:\n%s", file, log)
	}
	harness.Until(t, time.Minute, "status counts the file's missing shards", func() (bool, string) {
		s, err := f.device.TryStatus(t, file)
		if err != nil || len(s.Paths) != 1 {
			return false, fmt.Sprint(err)
		}
		p := s.Paths[0]
		return p.Path == file && p.PacksLost > 0 && p.ShardsMissing > 0, fmt.Sprintf("%+v", p)
	})
}
