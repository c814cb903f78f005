package posix

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skep/test/seed"
)

// These tests run the same system calls on a drive and on ext4, and compare what
// each said: results, errnos, attributes. ext4 is the judge of what a local
// filesystem does.

// TestLikeLocal goes through every call on every kind of target, as root, as the
// owner and as somebody else.
func TestLikeLocal(t *testing.T) {
	users := []string{"as 0 0", "as 1000 1000 1001", "as 2000 2000 1000"}
	if os.Geteuid() != 0 {
		users = []string{""}
	}
	sharedVariants(t, func(t *testing.T, d *drive) {
		for _, user := range users {
			compare(t, d, matrix(user))
		}
		compare(t, d, timesMatrix())
	})
	asUser(t)
}

// TestScriptsLikeLocal runs the scripts of testdata/scripts.
func TestScriptsLikeLocal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become several users")
	}
	scripts, err := filepath.Glob("testdata/scripts/*.txt")
	must(t, err)
	if len(scripts) == 0 {
		t.Fatal("no scripts")
	}
	sharedVariants(t, func(t *testing.T, d *drive) {
		for _, s := range scripts {
			b, err := os.ReadFile(s)
			must(t, err)
			t.Run(strings.TrimSuffix(filepath.Base(s), ".txt"), func(t *testing.T) { compare(t, d, string(b)) })
		}
	})
}

// TestRandomLikeLocal runs random calls. SKEP_SEED replays a run.
func TestRandomLikeLocal(t *testing.T) {
	from := seed.For(t)
	calls := 4000
	if testing.Short() {
		calls = 1000
	}
	sharedVariants(t, func(t *testing.T, d *drive) {
		compare(t, d, randomScript(rand.New(rand.NewPCG(from, 0)), calls, os.Geteuid() == 0))
	})
	asUser(t)
}

// compare runs a script on the drive and on a local filesystem.
func compare(t *testing.T, d *drive, script string) {
	t.Helper()
	local := localDir(t)
	remote, err := os.MkdirTemp(d.root, "compare-")
	must(t, err)
	defer removeAll(t, remote)
	must(t, os.Chmod(remote, 0o755))
	must(t, os.Chmod(local, 0o755))
	for _, dir := range []string{local, remote} {
		must(t, os.Mkdir(filepath.Join(dir, "cwd"), 0o755)) // where ".." leads to nothing but itself
	}
	want := runScript(t, filepath.Join(local, "cwd"), script)
	got := runScript(t, filepath.Join(remote, "cwd"), script)
	section, differ, since := "", 0, 0
	for i, w := range want {
		if strings.HasPrefix(w, "#") {
			section, since = w, i
		}
		if i >= len(got) {
			t.Fatalf("the drive stopped at %q", w)
		}
		if g := got[i]; g != w {
			if differ++; differ == 1 {
				t.Logf("after\n%s", strings.Join(want[max(since, i-200):i], "\n"))
			}
			if differ <= 25 {
				t.Errorf("%s\n   local: %s\n   drive: %s", section, w, g)
			}
		}
	}
	if differ > 25 {
		t.Errorf("and %d more", differ-25)
	}
}

// removeAll removes a tree, whatever its modes say.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if e != nil && e.IsDir() && err == nil {
			return os.Chmod(p, 0o700)
		}
		return nil
	}))
	must(t, os.RemoveAll(dir))
}

// runScript runs a script in dir, in a process of its own.
func runScript(t *testing.T, dir, script string) []string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), scriptEnv+"=1")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(script)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("the script in %s: %v\n%s", dir, err, errs.String())
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

// targets are paths that calls are tried on, with what makes them. @ is a folder
// of the case's own, in which lies a file f.
var targets = []struct{ path, setup string }{
	{"f", ""},
	{"none", ""},
	{"none/x", ""},
	{"f/x", ""},
	{"f/", ""},
	{"none/", ""},
	{"EMPTY", ""},
	{"LONG", ""},
	{"LONG+", ""},
	{".", ""},
	{"..", ""},
	{"d", "mkdir @/d 0755; chown @/d 1000 1000"},
	{"d/", "mkdir @/d 0755; chown @/d 1000 1000"},
	{"d/..", "mkdir @/d 0755; chown @/d 1000 1000"},
	{"full", "mkdir @/full 0777; chmod @/full 0777; mkdir @/full/sub 0755; mknod @/full/f reg 0644"},
	{"s", "symlink f @/s"},
	{"dangling", "symlink none @/dangling"},
	{"l1", "symlink l2 @/l1; symlink l1 @/l2"},
	{"l1/x", "symlink l2 @/l1; symlink l1 @/l2"},
	{"sd", "mkdir @/d 0777; symlink d @/sd"},
	{"sd/", "mkdir @/d 0777; symlink d @/sd"},
	{"h", "link @/f @/h"},
	{"p", "mknod @/p fifo 0644; chown @/p 1000 1000"},
	{"c", "mknod @/c chr 0666 259; chown @/c 1000 1000"},
	{"x/f", "mkdir @/x 0777; mknod @/x/f reg 0666; chmod @/x/f 0666; chmod @/x 0600"},
	{"r/f", "mkdir @/r 0777; mknod @/r/f reg 0666; chmod @/r/f 0666; chmod @/r 0555"},
	{"r/new", "mkdir @/r 0777; chmod @/r 0555"},
	{"t/mine", "mkdir @/t 0777; chmod @/t 01777; mknod @/t/mine reg 0666; chown @/t/mine 1000 1000"},
	{"t/other", "mkdir @/t 0777; chmod @/t 01777; mknod @/t/other reg 0666; chmod @/t/other 0666; chown @/t/other 2000 2000"},
	{"t/dir", "mkdir @/t 0777; chmod @/t 01777; mkdir @/t/dir 0777; chown @/t/dir 2000 2000"},
	{"g/new", "mkdir @/g 0777; chown @/g 0 1001; chmod @/g 02777"},
	{"suid", "mknod @/suid reg 0755; chown @/suid 1000 1000; chmod @/suid 06777"},
	{"ro", "mknod @/ro reg 0444; chown @/ro 1000 1000"},
}

// calls are tried on every target, which stands for %.
var calls = []string{
	"stat %", "lstat %", "list %", "readlink %", "cat @/f",
	"access % 0", "access % 1", "access % 2", "access % 4",
	"mkdir % 0755", "mkdir % 07777", "rmdir %", "unlink %",
	"mknod % reg 0640", "mknod % fifo 0666", "mknod % sock 0666", "mknod % chr 0600 259", "mknod % blk 0600 1793",
	"symlink f %", "symlink EMPTY %",
	"open a % rdonly|nonblock", "open a % wronly|nonblock", "open a % rdwr|nonblock|trunc", "open a % rdwr|nonblock|creat 0666", "open a % rdwr|creat|excl 0640",
	"open a % rdonly|directory", "open a % rdonly|nofollow|nonblock", "open a % rdwr|tmpfile 0600", "open a % wronly|append|nonblock", "open a % wronly|directory",
	"chmod % 0600", "chmod % 07777", "chmod % 02755",
	"chown % 2000 2000", "chown % -1 1001", "chown % 1000 -1", "lchown % 1000 1000",
	"truncate % 3", "truncate % 0", "truncate % -1", "truncate % 100",
	"utimens % 5 6 7 8", "touch %",
	"setxattr % user.a b", "getxattr % user.a", "rmxattr % user.a", "lsxattr %", "setxattr % trusted.a b", "setxattr % security.a b",
	"setacl % access u::7 u:2000:7 g::5 m::7 o::0", "setacl % default u::7 u:2000:7 g::5 m::7 o::0",
	"link % @/new", "link @/f %",
	"rename % @/new", "rename @/f %", "rename @/other %", "rename % @/other", "rename % %",
	"rename @/f % noreplace", "rename @/f % exchange", "rename % @/f exchange", "rename @/f % exchange|noreplace",
}

// matrix tries every call on every target, each in a folder of its own.
func matrix(user string) string {
	var b strings.Builder
	put := func(dir, lines string) {
		for line := range strings.SplitSeq(strings.ReplaceAll(lines, "@", dir), ";") {
			fmt.Fprintln(&b, strings.TrimSpace(line))
		}
	}
	root := ""
	if user != "" {
		root = "as 0 0"
	}
	n := 0
	every := uint32(4) // of all cases; SKEP_POSIX=all has them all
	if os.Getenv("SKEP_POSIX") == "all" {
		every = 1
	}
	fmt.Fprintln(&b, "umask 0027")
	for _, target := range targets {
		if user == "" && strings.Contains(target.setup, " chr ") {
			continue
		}
		for _, call := range calls {
			n++
			if uint32(n)*2654435761>>16%every != 0 { // scattered over calls and targets
				continue
			}
			dir := fmt.Sprintf("c%d", n)
			where := dir + "/" + target.path
			if target.path == "EMPTY" {
				where = "EMPTY"
			}
			if target.path == "c" && (strings.HasPrefix(call, "open") || strings.Contains(call, "exchange")) {
				continue // no device of a drive can be opened
			}
			fmt.Fprintf(&b, "# %s: %s on %s (%s)\n%s\n", user, call, target.path, target.setup, root)
			put(dir, "mkdir @ 0777; chmod @ 0777; open f @/f creat|wronly 0644; write f hello; close f; chmod @/f 0664; mkdir @/other 0777")
			if user != "" {
				put(dir, "chown @/f 1000 1000")
			}
			put(dir, target.setup)
			put(dir, user+";"+strings.ReplaceAll(call, "%", where)+";close a")
			put(dir, root+";lstat "+where+";lstat @/f;list @;lsxattr @/f;cat @/f;lstat @/new;stat @")
		}
	}
	return b.String()
}

// timesMatrix tries which times a call changes.
func timesMatrix() string {
	var b strings.Builder
	for i, call := range []string{
		"chmod @/f 0600", "chmod @/f 0644", "truncate @/f 5", "truncate @/f 0", "truncate @/f 9", "link @/f @/new", "unlink @/f",
		"rename @/f @/new", "rename @/f @/g", "rename @/f @/d/new", "rename @/f @/f", "rename @/d @/new", "rename @/f @/g exchange", "mkdir @/new 0755", "rmdir @/d",
		"mknod @/new reg 0644", "mknod @/new fifo 0644", "symlink x @/new", "open a @/new creat|rdwr 0644", "open a @/f rdwr|trunc",
		"open a @/f creat|rdwr 0644", "setxattr @/f user.a b", "setxattr @/f user.k v", "rmxattr @/f user.k", "utimens @/f 1 2 3 4", "touch @/f", "cat @/f", "list @", "stat @/f",
		"open a @/f rdwr; write a x", "open a @/f rdwr; write a x; close a", "open a @/f wronly|append; write a x; close a", "open a @/f rdwr; ftruncate a 3", "open a @/f rdwr; ftruncate a 5",
		"open a @/f rdwr; fallocate a none 0 10", "open a @/f rdwr; fallocate a keep 0 10", "open a @/f rdwr; fallocate a keep|punch 0 2",
		"setacl @/f access u::6 g::4 o::4", "setacl @/f access u::6 u:1:7 g::4 m::6 o::4", "open a @ rdwr|tmpfile 0600", "open a @ rdwr|tmpfile 0600; linkfd a @/new",
		"utimens @/f -5 999999999 -86400 1", "utimens @/f 5000000000 1 5000000000 999999999",
	} {
		dir := fmt.Sprintf("t%d", i)
		lines := "mkdir @ 0755; open f @/f creat|wronly 0644; write f hello; close f; mknod @/g reg 0644; mkdir @/d 0755; setxattr @/f user.k v;" +
			"mark @; mark @/f; mark @/d; mark @/g;" + call + "; close a; moved @; moved @/f; moved @/d; moved @/g; lstat @/f; stat @"
		if strings.HasPrefix(call, "utimens") {
			lines += "; times @/f"
		}
		fmt.Fprintf(&b, "# %s\n", call)
		for line := range strings.SplitSeq(strings.ReplaceAll(lines, "@", dir), ";") {
			fmt.Fprintln(&b, strings.TrimSpace(line))
		}
	}
	return b.String()
}

// randomScript makes calls on a small set of names, so that they meet.
func randomScript(r *rand.Rand, n int, root bool) string {
	var b strings.Builder
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	dir := func() string { return pick(".", "a", "b", "a/a", "a/b", "b/a") }
	name := func() string { return dir() + "/" + pick("a", "b", "c", "d") }
	mode := func() string { return pick("0644", "0755", "0600", "0777", "0000", "02755", "01777", "04755") }
	owner := func() string { return pick("0 0", "1000 1000", "2000 1000", "-1 0", "-1 2000", "1000 -1", "0 1000") }
	users := []string{"as 0 0", "as 0 0", "as 1000 1000", "as 2000 2000 1000"}
	makers := []func() string{
		func() string { return "mkdir " + name() + " " + mode() },
		func() string { return "mkdir " + name() + " 0777" },
		func() string { return "rmdir " + name() },
		func() string { return "unlink " + name() },
		func() string { return "link " + name() + " " + name() },
		func() string { return "symlink " + pick("a", "../b", "c", "./d", "no/where") + " " + name() },
		func() string { return "rename " + name() + " " + name() },
		func() string { return "rename " + name() + " " + name() + " " + pick("exchange", "noreplace") },
		func() string { return "mknod " + name() + " " + pick("reg", "fifo", "sock") + " " + mode() },
		// The kernel, writing a file alone, does not take set-user-id away that the
		// file got after it was opened.
		func() string { return "chmod " + name() + " " + pick("0644", "0755", "0600", "0777", "0000", "01777") },
		func() string { return "truncate " + name() + " " + pick("0", "1", "5000", "70000", "1100000") },
		func() string {
			return "open " + pick("x", "y") + " " + name() + " " + pick("rdwr|creat|nonblock", "rdwr|nonblock", "rdwr|trunc|nonblock", "wronly|append|nonblock", "rdwr|creat|excl") + " " + mode()
		},
		func() string {
			return "pwrite " + pick("x", "y") + " " + pick("0", "3", "16380", "66000") + " " + strings.Repeat(pick("p", "q"), 1+r.IntN(20000))
		},
		func() string { return "pread " + pick("x", "y") + " " + pick("0", "2", "16382", "65999") + " 30" },
		func() string { return "ftruncate " + pick("x", "y") + " " + pick("0", "4", "40000") },
		func() string {
			return "fallocate " + pick("x", "y") + " " + pick("none", "keep", "keep|punch", "zero") + " " + pick("0", "100", "30000") + " " + pick("1", "5000", "50000")
		},
		func() string { return "fstat " + pick("x", "y") },
		func() string { return "close " + pick("x", "y") },
		func() string { return "stat " + name() },
		func() string { return "lstat " + name() },
		func() string { return "list " + dir() },
		func() string { return "setxattr " + name() + " user." + pick("a", "b") + " " + pick("v", "w") },
		func() string { return "getxattr " + name() + " user." + pick("a", "b") },
		func() string { return "lsxattr " + name() },
		func() string { return "access " + name() + " " + pick("1", "2", "4") },
	}
	if root {
		makers = append(makers,
			func() string { return pick(users...) },
			func() string { return "chown " + name() + " " + owner() },
			func() string {
				return "setacl " + name() + " access u::7 u:2000:" + pick("0", "7") + " g::5 m::" + pick("4", "7") + " o::0"
			},
			func() string {
				return "setacl " + name() + " default u::7 u:2000:" + pick("0", "7") + " g::5 m::" + pick("4", "7") + " o::0"
			},
			func() string { return "getxattr " + name() + " system.posix_acl_access" },
		)
	}
	fmt.Fprintln(&b, "umask 022")
	for range n {
		fmt.Fprintln(&b, makers[r.IntN(len(makers))]())
	}
	return b.String()
}
