package posix

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes a directory with what people have: files of many sizes, links,
// directories, times and attributes.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rnd := rand.New(rand.NewSource(1))
	for i := range 200 {
		sub := filepath.Join(dir, fmt.Sprintf("dir %d", i%10), fmt.Sprint(i%3))
		must(t, os.MkdirAll(sub, 0o755))
		b := make([]byte, []int{0, 1, 1000, 16384, 16385, 100_000}[i%6])
		rnd.Read(b)
		name := filepath.Join(sub, fmt.Sprintf("file-%d.bin", i))
		must(t, os.WriteFile(name, b, os.FileMode(0o600+i%8*8)))
		when := time.Unix(1_500_000_000+int64(i)*1000, int64(i)*1001)
		must(t, os.Chtimes(name, when, when))
		if i%20 == 0 {
			must(t, os.Link(name, name+".link"))
			must(t, os.Symlink(filepath.Base(name), name+".sym"))
			if err := unix.Setxattr(name, "user.note", []byte("n"), 0); err != nil {
				t.Logf("the disk below %s keeps no attributes: %v", dir, err)
			}
		}
	}
	return dir
}

// TestRsync copies with all that rsync can keep, and has it compare contents; the
// second run finds nothing to do, also after remounting.
func TestRsync(t *testing.T) {
	needs(t, "rsync")
	variants(t, func(t *testing.T, d *drive) {
		src := sample(t) + "/"
		sync := func() string {
			return d.run("rsync", "-aHAX", "--checksum", "--delete", "--itemize-changes", src, d.path("copy")+"/")
		}
		if out := sync(); strings.Count(out, ">f") != 200 {
			t.Errorf("the first run copied:\n%s", out)
		}
		for _, when := range []string{"at once", "remounted"} {
			if out := sync(); out != "" {
				t.Errorf("%s, the second run found:\n%s", when, out)
			}
			d.remount()
		}
		d.run("diff", "-r", "--no-dereference", src, d.path("copy"))
		d.run("rsync", "-a", "--inplace", "--checksum", "--itemize-changes", src, d.path("copy")+"/")
	})
	asUser(t)
}

func TestTar(t *testing.T) {
	needs(t, "tar")
	variants(t, func(t *testing.T, d *drive) {
		src := sample(t)
		d.run("tar", "cf", "sample.tar", "-C", src, ".")
		must(t, os.Mkdir(d.path("out"), 0o755))
		d.run("tar", "xpf", "sample.tar", "-C", "out")
		d.remount()
		d.run("diff", "-r", "--no-dereference", src, d.path("out"))
		if out, err := d.try("tar", "df", "sample.tar", "-C", "out"); err != nil {
			t.Errorf("what was unpacked differs: %s", out)
		}
	})
}

func TestGit(t *testing.T) {
	needs(t, "git")
	variants(t, func(t *testing.T, d *drive) {
		d.run("git", "init", "-q", "repo")
		must(t, os.CopyFS(d.path("repo/src"), os.DirFS(sample(t))))
		d.run("git", "-C", "repo", "add", ".")
		d.run("git", "-C", "repo", "commit", "-qm", "first")
		d.remount()
		if out := d.run("git", "-C", "repo", "status", "--porcelain"); out != "" {
			t.Errorf("status: %s", out)
		}
		d.run("git", "-C", "repo", "fsck", "--strict")
		d.run("git", "clone", "-q", "repo", "clone")
		d.run("git", "-C", "clone", "gc", "-q")
		d.run("diff", "-r", "repo/src", "clone/src")
	})
	asUser(t)
}

// TestSQLite: databases lock, map and sync.
func TestSQLite(t *testing.T) {
	needs(t, "sqlite3")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			variants(t, func(t *testing.T, d *drive) {
				var sql strings.Builder
				fmt.Fprintf(&sql, "pragma journal_mode=%s; create table t(a integer primary key, b text);\n", mode)
				for i := range 300 {
					fmt.Fprintf(&sql, "insert into t values(%d, hex(randomblob(200)));\n", i)
				}
				must(t, os.WriteFile(d.path("fill.sql"), []byte(sql.String()), 0o644))
				d.run("sh", "-c", "sqlite3 db <fill.sql")
				d.remount()
				if out := d.run("sqlite3", "db", "pragma integrity_check; select count(*) from t;"); !strings.Contains(out, "ok\n300") {
					t.Errorf("got %s", out)
				}
			})
		})
	}
}

// TestEditor is what editors do to save: write aside, sync, rename over, with a
// backup and a lock file.
func TestEditor(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		must(t, os.WriteFile(d.path("text"), []byte("old"), 0o640))
		for i := range 20 {
			lock, err := os.OpenFile(d.path(".text.lock"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			must(t, err)
			must(t, lock.Close())
			must(t, os.Rename(d.path("text"), d.path("text~")))
			f, err := os.OpenFile(d.path("text"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			must(t, err)
			content := bytes.Repeat([]byte{byte('a' + i)}, i*1000)
			_, err = f.Write(content)
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
			must(t, os.Chmod(d.path("text"), 0o640))
			must(t, os.Remove(d.path(".text.lock")))
			if b, err := os.ReadFile(d.path("text")); err != nil || !bytes.Equal(b, content) {
				t.Fatalf("save %d: %d bytes, %v", i, len(b), err)
			}
		}
	})
}

// TestTrash: file managers move what is deleted to the top of the drive.
func TestTrash(t *testing.T) {
	d := newDrive(t, config{})
	must(t, os.MkdirAll(d.path("photos/2024"), 0o755))
	must(t, os.WriteFile(d.path("photos/2024/a.jpg"), []byte("jpg"), 0o644))
	must(t, os.MkdirAll(d.path(".Trash-0/files"), 0o700))
	must(t, os.Rename(d.path("photos/2024"), d.path(".Trash-0/files/2024")))
	must(t, os.RemoveAll(d.path(".Trash-0")))
	var fs unix.Statfs_t
	must(t, unix.Statfs(d.root, &fs))
	if fs.Blocks == 0 || fs.Bavail == 0 || fs.Namelen != 255 {
		t.Errorf("free space: %+v", fs)
	}
}
