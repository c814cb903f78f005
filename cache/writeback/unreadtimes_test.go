package writeback_test

import (
	"errors"
	"os"
	"testing"

	"skep/cache/disk"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/test/memswarm"
)

// A file that cannot be read has in the commit the times of the content that it has there,
// whatever is written to it meanwhile, by whichever name: who compares sizes and times
// would take old content for new. Nor does each write cost a commit.
func TestUnreadFileHasTheTimesOfItsContent(t *testing.T) {
	fs := &unreadable{FS: disk.Local, from: 2 << 20}
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, fs: fs}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	old, changed := random(1, 3<<20), random(2, 3<<20)
	files := []string{"f", "dir/f", "linked", "another"}
	want := map[string]string{"dir/": ""}
	for _, name := range files[:3] {
		d.putting(want)(name, old)
	}
	d.link("linked", "another")
	want["another"] = string(old)
	d.sync()
	times := func(d *device) map[string][2]tree.Time {
		t.Helper()
		out := map[string][2]tree.Time{}
		for _, name := range files {
			a := must(d.tree.Find(ctx, name))
			out[name] = [2]tree.Time{a.Mtime, a.Ctime}
		}
		return out
	}
	compare := func(what string, got, want map[string][2]tree.Time) {
		t.Helper()
		for name, times := range want {
			if got[name] != times {
				t.Errorf("%s: %s has the times %v, want %v", what, name, got[name], times)
			}
		}
	}
	then := times(d)
	fs.fails.Store(true)
	try := func() {
		t.Helper()
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) {
			t.Fatalf("sync: %v", err)
		}
	}
	for _, name := range files[:3] {
		d.put(name, changed)
	}
	try()
	try()
	heads := swarm.Published()
	for range 5 {
		for _, name := range files[:3] {
			f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, name)).Ino, os.O_RDWR))
			if _, err := f.WriteAt(ctx, changed[:10], 0, false); err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		try()
	}
	if n := swarm.Published() - heads; n != 0 {
		t.Errorf("%d commits were published that say nothing new", n)
	}
	r := recovered(t, swarm)
	check(t, r.listTree(), want)
	compare("unread", times(r), then)

	fs.fails.Store(false)
	d.sync()
	for _, name := range files {
		want[name] = string(changed)
	}
	r = recovered(t, swarm)
	check(t, r.listTree(), want)
	compare("read", times(r), times(d))
}
