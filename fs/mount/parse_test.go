package mount

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	id := func(n uint32) *uint32 { return &n }
	for _, tt := range []struct {
		list string
		want Options
	}{
		{"", Options{}},
		{"ro,allow_other", Options{ReadOnly: true, AllowOther: true}},
		{"ro,rw", Options{}},
		{"noatime,nodiratime,lazytime,async", Options{NoAtime: true}},
		{"noatime, noexec,nonempty", Options{NoAtime: true, NoExec: true, NonEmpty: true}},
		{"suid,dev", Options{SetUser: true, Devices: true}},
		{"suid,dev,nosuid,nodev", Options{}},
		{"uid=1000,gid=0", Options{UID: id(1000), GID: id(0)}},
		{"defaults,_netdev,noauto,x-systemd.automount,comment=hi,nosuid,nodev,default_permissions", Options{}},
	} {
		var got Options
		if err := got.Parse(tt.list); err != nil {
			t.Errorf("%q: %v", tt.list, err)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %+v, want %+v", tt.list, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		list, mentions string
		reason         error
	}{
		{"ro,allow_othr", `"allow_othr"; known are allow_other, `, ErrUnknownOption},
		{"uid=me", "uid=1000", ErrOptionValue},
		{"uid", "uid=1000", ErrOptionValue},
		{"gid=-1", "gid=1000", ErrOptionValue},
		{"uid=4294967296", "uid=1000", ErrOptionValue},
		{"ro=1", "takes no value", ErrOptionValue},
	} {
		var o Options
		err := o.Parse(tt.list)
		var oe *OptionError
		if !errors.Is(err, tt.reason) || !errors.As(err, &oe) || !strings.Contains(err.Error(), tt.mentions) {
			t.Errorf("%q: got %v, want %v that mentions %q", tt.list, err, tt.reason, tt.mentions)
		}
	}
}

func TestParsePoint(t *testing.T) {
	got, ok := parsePoint(`36 35 0:45 / /mnt\0402/a\134b rw,nosuid master:1 - fuse.skep skep rw,user_id=0`)
	want := point{id: "36", dev: "0:45", dir: `/mnt 2/a\b`, fstype: "fuse.skep"}
	if !ok || got != want || !got.ours() {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	for _, line := range []string{"", "36 35 0:45 / /mnt rw", "1 - x", " - "} {
		if p, ok := parsePoint(line); ok {
			t.Errorf("%q: got %+v", line, p)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/", true},
		{"/a (deleted)", "/a", false}, {"/a/b (deleted)", "/a", true}, {"socket:[12]", "/a", false},
	} {
		if got := within(tt.path, tt.dir); got != tt.want {
			t.Errorf("within(%q, %q) = %v", tt.path, tt.dir, got)
		}
	}
}

// TestUsers looks at a made-up /proc.
func TestUsers(t *testing.T) {
	proc := t.TempDir()
	add := func(pid, comm, cwd, fd, maps string) {
		dir := filepath.Join(proc, pid)
		must(t, os.MkdirAll(filepath.Join(dir, "fd"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "maps"), []byte(maps), 0o644))
		must(t, os.Symlink(cwd, filepath.Join(dir, "cwd")))
		must(t, os.Symlink(fd, filepath.Join(dir, "fd", "3")))
	}
	add("10", "bash", "/mnt/d/x", "/dev/null", "")
	add("11", "vim", "/", "/mnt/d/a b", "")
	add("12", "player", "/", "socket:[1]", "7f00-7f01 r--s 00000000 00:2d 5    /mnt/d/song\n")
	add("13", "cat", "/", "/mnt/dd", "7f00-7f01 r-xp 00000000 00:2d 5    /usr/bin/cat\n")
	must(t, os.MkdirAll(filepath.Join(proc, "sys"), 0o755))

	uses, hidden := users(proc, "/mnt/d", nil)
	want := []Use{
		{10, "bash", "working directory /mnt/d/x"},
		{11, "vim", "has open /mnt/d/a b"},
		{12, "player", "has mapped /mnt/d/song"},
	}
	if !reflect.DeepEqual(uses, want) || hidden {
		t.Errorf("got %v, %v, want %v", uses, hidden, want)
	}
	msg := (&BusyError{Dir: "/mnt/d", Uses: uses}).Error()
	if !strings.Contains(msg, "bash (10: working directory /mnt/d/x), vim (11: ") || !strings.Contains(msg, "--force") {
		t.Errorf("message: %s", msg)
	}
}

// TestUsersThatWait: a process that is being replaced by another program shows
// nothing, and keeps who looks waiting. A pipe stands for it.
func TestUsersThatWait(t *testing.T) {
	proc := t.TempDir()
	must(t, os.Mkdir(filepath.Join(proc, "10"), 0o755))
	maps := filepath.Join(proc, "10", "maps")
	must(t, unix.Mkfifo(maps, 0o644))
	enough := make(chan time.Time, 1)
	enough <- time.Now()
	if uses, hidden := users(proc, "/mnt/d", enough); len(uses) > 0 || !hidden {
		t.Errorf("got %v, %v", uses, hidden)
	}
	w, err := os.OpenFile(maps, os.O_WRONLY, 0)
	must(t, err)
	must(t, w.Close())
}

// TestManyUsersThatWait: no more than some are looked at at once, however many wait.
func TestManyUsersThatWait(t *testing.T) {
	proc := t.TempDir()
	var maps []string
	for pid := range looksAtOnce + 8 {
		dir := filepath.Join(proc, strconv.Itoa(10+pid))
		must(t, os.Mkdir(dir, 0o755))
		maps = append(maps, filepath.Join(dir, "maps"))
		must(t, unix.Mkfifo(maps[pid], 0o644))
	}
	enough := make(chan time.Time, 1)
	enough <- time.Now()
	users(proc, "/mnt/d", enough)
	var looking []int // at pipes that have a reader, which waits until they are closed
	for len(looking) < looksAtOnce {
		maps = slices.DeleteFunc(maps, func(name string) bool {
			fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				looking = append(looking, fd)
			}
			return err == nil
		})
		runtime.Gosched()
	}
	if len(looking) != looksAtOnce {
		t.Errorf("%d are looked at at once", len(looking))
	}
	for _, fd := range looking {
		must(t, unix.Close(fd))
	}
	for _, name := range maps {
		w, err := os.OpenFile(name, os.O_WRONLY, 0)
		must(t, err)
		must(t, w.Close())
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b-1": "/a/b-1", "/a b": "'/a b'", "/it's": `'/it'\''s'`} {
		if got := Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A list that has what the kernel adds says everything; another one, what is to
// change.
func TestRemounted(t *testing.T) {
	const whole = ",user_id=0,group_id=0,max_read=1048576"
	safe := Options{NoAtime: true}
	for _, tt := range []struct {
		list      string
		now, then Options
	}{
		{"remount,ro", safe, Options{NoAtime: true, ReadOnly: true}},
		{"rw,remount", Options{ReadOnly: true, NoExec: true, SetUser: true}, Options{NoExec: true, SetUser: true}},
		{"ro,nosuid,nodev,remount,noatime" + whole, safe, Options{NoAtime: true, ReadOnly: true}},
		{"rw,remount" + whole, Options{ReadOnly: true, NoExec: true}, Options{SetUser: true, Devices: true}},
		{"rw,nosuid,nodev,noexec,remount,allow_other" + whole, Options{}, Options{NoExec: true, AllowOther: true}},
	} {
		if !IsRemount(tt.list) {
			t.Errorf("%s: no remount", tt.list)
		}
		if got, err := tt.now.remounted(tt.list); err != nil || got != tt.then {
			t.Errorf("%s: %+v, %v, want %+v", tt.list, got, err, tt.then)
		}
	}
	if IsRemount("ro,noremount") {
		t.Error("that is none")
	}
	if _, err := safe.remounted("remount,what"); !errors.Is(err, ErrUnknownOption) {
		t.Errorf("an unknown option: %v", err)
	}
}
