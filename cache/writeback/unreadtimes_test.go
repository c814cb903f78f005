package writeback_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"skep/cache/packfiles"
	"skep/cache/tree"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// A file that cannot be read has in the commit the times of the content that it has there,
// whatever is written to it meanwhile, by whichever name: who compares sizes and times
// would take old content for new. Nor does each write cost a commit.
func TestUnreadFileHasTheTimesOfItsContent(t *testing.T) {
	d, fs := unreadableDevice(t)
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
	for _, name := range files[:3] {
		d.put(name, changed)
	}
	d.tryUnread()
	d.tryUnread()
	heads := d.swarm.Published()
	for range 5 {
		for _, name := range files[:3] {
			f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, name)).Ino, os.O_RDWR))
			if _, err := f.WriteAt(ctx, changed[:10], 0, false); err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		d.tryUnread()
	}
	if n := d.swarm.Published() - heads; n != 0 {
		t.Errorf("%d commits were published that say nothing new", n)
	}
	r := recovered(t, d.swarm)
	check(t, r.listTree(), want)
	compare("unread", times(r), then)

	fs.fails.Store(false)
	d.sync()
	for _, name := range files {
		want[name] = string(changed)
	}
	r = recovered(t, d.swarm)
	check(t, r.listTree(), want)
	compare("read", times(r), times(d))
}

// A record in a block of its own that cannot be read keeps no commit from going out, though
// the file that it is of has to stay in it as it was.
func TestUnreadFileWhoseRecordCannotBeReadEither(t *testing.T) {
	for _, linked := range []bool{true, false} {
		swarm := memswarm.New(9, 4, 7)
		source := &partly{Swarm: swarm}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source}
		d.open(newDrive)
		t.Cleanup(func() { d.close() })
		d.put("f", random(1, 3<<20))
		ino := must(d.tree.Find(ctx, "f")).Ino
		if err := d.tree.SetXattr(ctx, ino, "user.big", random(9, 10_000), 0); err != nil {
			t.Fatal(err)
		}
		if linked {
			d.link("f", "g")
		}
		d.sync()
		first := swarm.Head().Commit
		d.put("h", random(2, 1000))
		d.link("h", "i")
		d.sync()
		d.evictAll(ino)
		content := d.contentPacks()
		d.close()
		for n := range first.Number + 1 {
			if err := must(packfiles.Open(filepath.Join(d.dir, "packs"))).Remove(first.Group, n); err != nil {
				t.Fatal(err)
			}
		}
		refuse := func(ref group.PackRef) bool {
			return ref.Group == first.Group && ref.Number <= first.Number || slices.Contains(content, place{ref.Group, ref.Number})
		}
		source.refuse.Store(&refuse)
		d.open(nil)
		d.edit("f", []byte("edit"), 1<<20+100)
		d.put("else", []byte("else"))
		for range 4 {
			_ = d.engine.Sync(ctx) // fails for the file
		}
		if got := d.committed(); got["else"] != "else" {
			t.Errorf("linked %v: %d files are in the newest commit, and not the one that can be read", linked, len(got))
		}
	}
}

// An unread file that was renamed has its old content in the commit, and not its new time.
func TestUnreadFileThatWasRenamed(t *testing.T) {
	d, fs := unreadableDevice(t)
	old, changed := random(1, 3<<20), random(2, 3<<20)
	d.put("f", old)
	d.sync()
	fs.fails.Store(true)
	d.put("f", changed)
	d.rename("f", "g")
	for range 2 {
		_ = d.engine.Sync(ctx) // fails for the file
	}
	r := recovered(t, d.swarm)
	got, now := must(r.tree.Find(ctx, "g")), must(d.tree.Find(ctx, "g"))
	check(t, r.listTree(), map[string]string{"g": string(old)})
	if got.Mtime == now.Mtime {
		t.Errorf("the old content has the time of the new one, %v", got.Mtime)
	}
}

// A file that cannot be read and grows has nothing published.
func TestUnreadFileThatGrows(t *testing.T) {
	d, fs := unreadableDevice(t)
	d.put("f", random(1, 3<<20))
	d.sync()
	fs.fails.Store(true)
	d.put("f", random(2, 3<<20))
	for range 2 {
		_ = d.engine.Sync(ctx)
	}
	heads, stored := d.swarm.Published(), d.swarm.Stored()
	size := int64(3 << 20)
	for range 10 {
		f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, "f")).Ino, os.O_RDWR))
		if _, err := f.WriteAt(ctx, []byte("a line\n"), size, false); err != nil {
			t.Fatal(err)
		}
		size += 7
		f.Release()
		d.tryUnread()
	}
	if n := d.swarm.Published() - heads; n > 0 {
		t.Errorf("%d commits of 10 tries, %d bytes", n, d.swarm.Stored()-stored)
	}
}
