package posix

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests run other people's programs whose only aim is to find faults in
// filesystems. make posix runs them at length, with SKEP_POSIX=all.

// thorough reports whether there is time for everything.
func thorough() bool { return os.Getenv("SKEP_POSIX") == "all" }

// TestFio writes at random in several ways, reads all back and compares.
func TestFio(t *testing.T) {
	needs(t, "fio")
	size := "8m"
	if thorough() {
		size = "256m"
	}
	variants(t, func(t *testing.T, d *drive) {
		for name, args := range map[string][]string{
			"through calls":    {"--ioengine=psync", "--rw=randrw", "--bs=4k"},
			"odd sizes":        {"--ioengine=psync", "--rw=randwrite", "--bsrange=512-70k", "--bs_unaligned=1"},
			"mapped":           {"--ioengine=mmap", "--rw=randwrite", "--bs=4k"},
			"past the cache":   {"--ioengine=psync", "--direct=1", "--rw=randwrite", "--bs=16k"},
			"in parallel":      {"--ioengine=libaio", "--iodepth=16", "--rw=randwrite", "--bs=8k"},
			"synced":           {"--ioengine=psync", "--rw=randwrite", "--bs=32k", "--fdatasync=8"},
			"after allocation": {"--ioengine=psync", "--rw=write", "--bs=64k", "--fallocate=native"},
		} {
			t.Run(name, func(t *testing.T) {
				d.run("fio", append([]string{"--name=job", "--filename=" + strings.ReplaceAll(name, " ", "-"), "--size=" + size,
					"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--minimal", "--allow_mounted_write=1"}, args...)...)
			})
		}
	})
	asUser(t)
}

// stressors are those of stress-ng's class "filesystem" that concern what a
// drive has.
var stressors = []string{"access", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "dup", "fallocate", "fcntl", "fiemap",
	"filename", "flock", "fpunch", "fsize", "fstat", "getdent", "hdd", "inotify", "io", "iomix", "lease", "link", "locka", "lockf", "lockofd",
	"mknod", "mmap", "open", "rename", "seek", "sendfile", "splice", "symlink", "sync-file", "touch", "utime", "xattr", "readahead", "aio"}

// TestStress lets stress-ng do what it can, and verify.
func TestStress(t *testing.T) {
	needs(t, "stress-ng")
	if !thorough() {
		t.Skip("takes minutes: make posix")
	}
	variants(t, func(t *testing.T, d *drive) {
		for _, s := range stressors {
			t.Run(s, func(t *testing.T) {
				out, err := d.try("stress-ng", "--"+s, "2", "--timeout", "3s", "--verify", "--temp-path", ".", "--oomable")
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				d.empties(t)
			})
		}
		must(t, os.WriteFile(d.path("alive"), []byte("yes"), 0o644))
	})
}

// empties waits until all content is gone, after whoever made it deleted it.
func (d *drive) empties(t *testing.T) {
	t.Helper()
	var left int64
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		left = 0
		must(t, filepath.WalkDir(filepath.Join(d.conf.Home, "files"), func(_ string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && e.IsDir() {
				return nil
			}
			left++
			return err
		}))
		if left == 0 {
			return
		}
	}
	t.Fatalf("%d backing files are left of what was deleted", left)
}

// TestKilledDatabase: what a program was told is committed, is there after the
// server was killed, and the database is whole.
func TestKilledDatabase(t *testing.T) {
	needs(t, "sqlite3")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			variants(t, func(t *testing.T, d *drive) {
				d.run("sqlite3", "db", "pragma journal_mode="+mode+"; create table t(a integer primary key, b text);")
				told := d.fillUntilKilled("db")
				d.start()
				out := d.run("sqlite3", "db", "pragma integrity_check; select count(*) from t where a <= "+told+";")
				if out != "ok\n"+told+"\n" {
					t.Errorf("told that %s rows are in; found %s", told, out)
				}
			})
		})
	}
}

// fillUntilKilled adds rows to a table, one a transaction, kills the server in
// the midst of it, and returns the last row that was acknowledged.
func (d *drive) fillUntilKilled(db string) string {
	d.t.Helper()
	script := `i=0; while :; do i=$((i+1)); echo "insert into t values($i, hex(randomblob(500))); select $i;"; done | sqlite3 -bail ` + db
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = d.root
	out, err := cmd.StdoutPipe()
	must(d.t, err)
	must(d.t, cmd.Start())
	told, rows := "", 0
	b := make([]byte, 4096)
	var said strings.Builder
	for rows < 200 {
		n, err := out.Read(b)
		must(d.t, err)
		said.Write(b[:n])
		rows = strings.Count(said.String(), "\n")
	}
	d.Kill()
	lines := strings.Split(said.String(), "\n")
	told = lines[len(lines)-2]
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return told
}

// TestKilledRepository: git finds its repository whole after the server was
// killed in the midst of commits.
func TestKilledRepository(t *testing.T) {
	needs(t, "git")
	variants(t, func(t *testing.T, d *drive) {
		d.run("git", "init", "-q", "repo")
		must(t, os.CopyFS(d.path("repo/src"), os.DirFS(sample(t))))
		d.run("git", "-C", "repo", "add", ".")
		d.run("git", "-C", "repo", "commit", "-qm", "first")
		cmd := exec.Command("sh", "-c", `i=0; while :; do i=$((i+1)); echo $i >>log && git add log && git commit -qm "$i" && echo $i; done`)
		cmd.Dir = d.path("repo")
		cmd.Env = append(os.Environ(), "HOME="+d.conf.Home, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		for range 5 { // commits
			_, err := out.Read(make([]byte, 10))
			must(t, err)
		}
		d.Kill()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		d.start()
		_ = os.Remove(d.path("repo/.git/index.lock")) // as git says to do
		_ = os.Remove(d.path("repo/.git/HEAD.lock"))
		d.run("git", "-C", "repo", "fsck", "--strict", "--no-dangling")
		if n := strings.Count(d.run("git", "-C", "repo", "log", "--oneline"), "\n"); n < 6 {
			t.Errorf("%d commits are left of at least 6", n)
		}
	})
}
