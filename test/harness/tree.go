package harness

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Rsync runs rsync and returns what it itemized.
func Rsync(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("rsync is not installed")
	}
	return Run(t, exec.Command("rsync", args...)).OK(t)
}

// Same fails the test unless two trees are the same, in names, content and
// everything that rsync knows of.
func Same(t testing.TB, want, got string) {
	t.Helper()
	if diff := Rsync(t, "-aHAXnci", "--delete", want+"/", got+"/"); diff != "" {
		lines := strings.SplitAfterN(diff, "\n", 21)
		t.Fatalf("%s differs from %s:\n%s", got, want, strings.Join(lines[:min(20, len(lines))], ""))
	}
}

// Inodes are the inode numbers of a tree, by paths.
func Inodes(t testing.TB, dir string) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = st.Ino
		return err
	}))
	return out
}

// Canary marks content and names made by Special: it must not be seen outside
// of the device.
const Canary = "canary-that-nobody-may-read"

// Special makes a tree of everything that is not an ordinary file of some
// kilobytes, the same one for each seed.
func Special(t testing.TB, dir string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	write := func(name string, b []byte) {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, 0o644))
	}
	write("empty", nil)
	write("tiny-"+Canary, []byte(Canary+" in a tiny file\n"))
	write("text-"+Canary, bytes.Repeat([]byte(Canary+" in a text\n"), 4000))
	write("random", Noise(r, 5<<20+123))
	write("directory-"+Canary+"/deep/er/file", Noise(r, 70_000))
	write("name with spaces, \"quotes\", ümläuts and\na new line", []byte("x"))
	write(strings.Repeat("n", 255), []byte("long name"))
	write("private", []byte("only mine"))
	must(t, os.Chmod(filepath.Join(dir, "private"), 0o600))
	write("program", []byte("#!/bin/sh\n"))
	must(t, os.Chmod(filepath.Join(dir, "program"), 0o4755))
	write("linked", Noise(r, 40_000))
	must(t, os.Link(filepath.Join(dir, "linked"), filepath.Join(dir, "directory-"+Canary, "the same file")))
	must(t, os.Symlink("nowhere/"+Canary, filepath.Join(dir, "symlink")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640))
	must(t, os.Mkdir(filepath.Join(dir, "empty directory"), 0o1777))
	special(t, dir, write)
	old := time.Unix(981173106, 123456789)
	must(t, os.Chtimes(filepath.Join(dir, "empty"), old, old))
	must(t, os.Chtimes(filepath.Join(dir, "empty directory"), old, old))
}

// special adds what depends on the file system and on who we are.
func special(t testing.TB, dir string, write func(string, []byte)) {
	t.Helper()
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("far out"), 30<<20)
	must(t, err)
	must(t, sparse.Close())
	write("attributed", []byte("has an attribute"))
	err = unix.Setxattr(filepath.Join(dir, "attributed"), "user.skep.test", []byte(Canary+" in an attribute"), 0)
	if err != nil {
		t.Logf("no extended attributes here: %v", err)
	}
	if os.Geteuid() == 0 {
		write("somebody's", []byte("not root's"))
		must(t, os.Chown(filepath.Join(dir, "somebody's"), 1234, 2345))
	}
}

// Noise is content that cannot be compressed.
func Noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b
}

// Files makes n files of size bytes of noise below dir and returns their names.
func Files(t testing.TB, dir string, n, size int, seed uint64) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	var names []string
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("d%02d", i%8), fmt.Sprintf("f%04d", i))
		must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		must(t, os.WriteFile(name, Noise(r, size), 0o644))
		names = append(names, name)
	}
	return names
}
