package cli

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
	"skep/test/posix/ordinary"
)

// Nobody can offer more than the disk has.
func TestOfferLargerThanTheDisk(t *testing.T) {
	home := filepath.Join(smallDisk(t, "256m"), "home")
	r := harness.Skep(t, "peer", "--home", home, "--offer", "1G", "--listen", "/ip4/127.0.0.1/tcp/0")
	r.Fails(t, 1, "the offer is larger than the free space of the disk", "1.0 GiB", "--offer")
	absent(t, home)
	dir := filepath.Dir(home)
	for _, args := range [][]string{{"init"}, {"recover", "--bootstrap", goodAddr}} {
		new := filepath.Join(dir, args[0])
		words := filepath.Join(harness.Dir(t), "words")
		if args[0] == "recover" {
			write(t, words, string(harness.NewWords()))
		}
		args = append(args, "--home", new, "--offer", "1G", "--words-file", words)
		harness.Skep(t, args...).Fails(t, 1, "the offer is larger than the free space of the disk", "1.0 GiB", "--offer")
		absent(t, new)
	}
	fitting := filepath.Join(dir, "fitting") // what is not said is made to fit
	harness.Skep(t, "init", "--home", fitting, "--words-file", filepath.Join(harness.Dir(t), "words")).OK(t)
	swarm := harness.NewSwarm(t, harness.Options{})
	p := swarm.Add(t, "--home", home, "--offer", "200M")
	settings, err := os.ReadFile(filepath.Join(home, "settings.json"))
	must(t, err)
	for offer, says := range map[string]string{"4M": "another skep daemon serves this home", "1G": "another skep daemon"} {
		harness.Skep(t, "peer", "--home", home, "--offer", offer).Fails(t, 1, says)
	}
	p.Kill()
	harness.Skep(t, "peer", "--home", home, "--offer", "1G").Fails(t, 1, "larger than the free space", "--offer")
	has(t, filepath.Join(home, "settings.json"), string(settings))
	// What somebody else has taken of the disk since does not keep it from serving.
	must(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 150<<20), 0o600))
	p.Start(t)
}

// More than the disk has goes through it, as what is out leaves. When nothing
// goes out, a full disk is told at write, and harms nothing that was written;
// when there is room again, all goes on.
func TestFullCache(t *testing.T) {
	asUser(t, "64m")
	disk := smallDisk(t, "64m")
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDeviceAt(t, filepath.Join(disk, "home"))
	d.Mount(t)
	r := rand.New(rand.NewPCG(1, 1))
	early := map[string]string{}
	for i := range 90 {
		content := string(harness.Noise(r, 1<<20))
		name := d.Path(fmt.Sprint("early", i))
		must(t, os.WriteFile(name, []byte(content), 0o644))
		early[name] = content
	}
	d.Sync(t)
	for _, p := range swarm.Peers {
		p.Kill()
	}
	kept := map[string]string{}
	var full error
	for i := range 200 {
		content := string(harness.Noise(r, 1<<20))
		name := d.Path(fmt.Sprint("file", i))
		if full = os.WriteFile(name, []byte(content), 0o644); full != nil {
			break
		}
		kept[name] = content
	}
	if !errors.Is(full, syscall.ENOSPC) {
		t.Fatalf("after %d files: %v, want ENOSPC", len(kept), full)
	}
	if len(kept) < 8 {
		t.Errorf("only %d MiB of 64 fit", len(kept))
	}
	t.Logf("%d files fit", len(kept))
	for name, content := range kept {
		has(t, name, content)
	}
	d.Status(t)
	for name := range kept { // half of them go
		if len(kept) < 6 {
			break
		}
		must(t, os.Remove(name))
		delete(kept, name)
	}
	harness.Until(t, 60*time.Second, "there is room again", func() (bool, string) {
		err := os.WriteFile(d.Path("after"), []byte("content"), 0o644)
		return err == nil, fmt.Sprint(err)
	})
	for _, p := range swarm.Peers {
		p.Start(t)
	}
	d.Sync(t)
	d.Kill()
	d.Mount(t)
	kept[d.Path("after")] = "content"
	maps.Copy(kept, early)
	for name, content := range kept {
		has(t, name, content)
	}
}

// When others fill the disk to the last byte, what frees space can still be
// done: deleting, and commits; and starting. When there is room again, all goes on.
func TestDiskFilledByOthers(t *testing.T) {
	asUser(t, "700m")
	disk := smallDisk(t, "700m")
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDeviceAt(t, filepath.Join(disk, "home"))
	d.Mount(t)
	r := rand.New(rand.NewPCG(2, 2))
	for i := range 40 {
		must(t, os.WriteFile(d.Path(fmt.Sprint("file", i)), harness.Noise(r, 5000*(i+1)), 0o644))
	}
	kept := string(harness.Noise(r, 300_000))
	write(t, d.Path("file39"), kept)
	d.Sync(t)
	harness.Until(t, 60*time.Second, "room is held", func() (bool, string) {
		_, err := os.Stat(filepath.Join(d.Home, "state/ballast"))
		return err == nil, fmt.Sprint(err)
	})
	other := filepath.Join(disk, "other")
	fill(t, other)
	err := os.WriteFile(d.Path("more"), harness.Noise(r, 1<<20), 0o644)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
	for i := range 20 {
		must(t, os.Remove(d.Path(fmt.Sprint("file", i))))
		fill(t, other) // nobody leaves us what comes free
	}
	d.Sync(t)
	for i := range 2 { // it starts all the same, also without any room held
		d.Kill()
		_ = os.Remove(filepath.Join(d.Home, "state/ballast"))
		fill(t, other)
		d.Mount(t)
		has(t, d.Path("file39"), kept)
		must(t, os.Remove(d.Path(fmt.Sprint("file", 20+i))))
	}
	must(t, os.Remove(other))
	want := string(harness.Noise(r, 1<<20))
	harness.Until(t, 60*time.Second, "there is room again", func() (bool, string) {
		err := os.WriteFile(d.Path("after"), []byte(want), 0o644)
		return err == nil, fmt.Sprint(err)
	})
	d.Sync(t)
	d.Kill()
	d.Mount(t)
	has(t, d.Path("after"), want)
	if names, err := os.ReadDir(d.Mnt); err != nil || len(names) > 20 {
		t.Errorf("%d files, %v", len(names), err)
	}
}

// fill writes to a file until the disk takes no more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// A peer whose disk is full is no longer asked to store, and what it holds is
// still good.
func TestFullPeer(t *testing.T) {
	asUser(t, "8m")
	disk := smallDisk(t, "8m")
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	small := swarm.Add(t, "--home", filepath.Join(disk, "home"), "--offer", "7M")
	d := swarm.NewDevice(t)
	d.Mount(t)
	source := filepath.Join(swarm.Dir, "source")
	must(t, os.Mkdir(source, 0o755))
	// Somebody else takes the room that was offered.
	must(t, os.WriteFile(filepath.Join(disk, "other"), make([]byte, 6<<20), 0o600))
	harness.Files(t, source, 20, 1<<20, 4)
	harness.Rsync(t, "-a", source+"/", d.Path("tree")+"/")
	d.Sync(t)
	if !small.Running() {
		t.Error("the peer with the full disk ended")
	}
	d.WaitStatus(t, 60*time.Second, "the peer offers no more than its disk has", func(s control.Status) bool {
		return !slices.ContainsFunc(s.Peers, func(p control.Peer) bool { return p.ID == small.ID() && p.Free > 2<<20 })
	})
	d.Destroy(t)
	again := swarm.Recover(t, d.Words)
	again.Mount(t)
	harness.Same(t, source, again.Path("tree"))
}

// Damage to local state is found: what can be made anew is, from the journal
// and the holders; nothing wrong is ever read.
func TestDamagedState(t *testing.T) {
	asUser(t)
	for name, pattern := range map[string]string{
		"index":        "state/*/*.ldb",
		"index log":    "state/*/*.log",
		"index marker": "state/*/MANIFEST-*",
		"pack files":   "packs/*",
	} {
		if ordinary.Is() && name != "index" {
			continue // what is read and written is the same for all
		}
		t.Run(name, func(t *testing.T) { damagedState(t, pattern) })
	}
}

func damagedState(t *testing.T, pattern string) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t)
	d.Mount(t)
	source := filepath.Join(swarm.Dir, "source")
	must(t, os.Mkdir(source, 0o755))
	harness.Files(t, source, 300, 3000, 6)
	harness.Files(t, source, 4, 300_000, 7)
	harness.Rsync(t, "-a", source+"/", d.Path("tree")+"/")
	d.Sync(t)
	write(t, d.Path("tree", "not yet out"), "content")
	write(t, filepath.Join(source, "not yet out"), "content")
	d.Stop(t)
	files := matching(t, d.Home, pattern)
	for _, f := range files {
		damage(t, f, 1)
	}
	r := d.Skep(t, "fsck")
	t.Logf("%d files altered; fsck: %d %s%s", len(files), r.Code, r.Stdout, r.Stderr)
	d.Mount(t)
	check(t, source, d.Path("tree"))
	d.Sync(t)
	d.Stop(t)
	d.Mount(t)
	check(t, source, d.Path("tree"))
}

// Content that changed while nobody had the drive is neither read nor, beside a
// small edit, committed: holders give what was there. Nobody has to ask fsck.
func TestDamagedWhileAway(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t)
	source := filled(t, d, 9, 1_500_000, 8)
	d.Stop(t)
	for i, f := range matching(t, d.Home, "files/*/*") {
		damage(t, f, i%3)
	}
	d.Mount(t)
	edited := 0
	must(t, filepath.WalkDir(source, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(source, path)
		for _, p := range []string{path, d.Path("tree", rel)} {
			overwrite(t, p, int64(100+edited), "edited")
			if edited%2 == 0 {
				must(t, os.Truncate(p, 1_400_000))
			}
		}
		edited++
		return nil
	}))
	check(t, source, d.Path("tree"))
	d.Sync(t)
	d.Stop(t)
	other := swarm.Recover(t, d.Words)
	other.Mount(t)
	check(t, source, other.Path("tree"))
}

func overwrite(t *testing.T, path string, at int64, with string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(with), at)
	must(t, err)
	must(t, f.Close())
}

// Content that is in no commit and is gone, or cut off, cannot come back: fsck names its
// files, also where opening the home went on without it.
func TestUncommittedContentIsGone(t *testing.T) {
	d := alone(t)
	for name, tt := range map[string]struct {
		end  func()
		harm func(path string) error
		says string
	}{
		"cut off":               {func() { d.Stop(t) }, func(p string) error { return os.Truncate(p, 1000) }, "/file: has 1000 bytes here, where 2000000 were left"},
		"gone":                  {func() { d.Stop(t) }, os.Remove, "/file: corrupt"},
		"gone, after a kill -9": {d.Kill, os.Remove, "/file: what was written of it, and is in no commit, is gone"},
	} {
		d.MountAlone(t)
		must(t, os.RemoveAll(d.Path("file")))
		write(t, d.Path("file"), strings.Repeat("x", 2_000_000))
		flush(t, d.Path("file"))
		tt.end()
		for _, f := range matching(t, d.Home, "files/*/*") {
			must(t, tt.harm(f))
		}
		r := d.Skep(t, "fsck")
		r.Fails(t, 1, "1 problem found")
		if !strings.Contains(r.Stdout, tt.says) {
			t.Errorf("%s: fsck says\n%s", name, r.Stdout)
		}
	}
}

// Content that changed on the disk without anybody's doing is found by the file
// that it belongs to, and let go of, so that its holders give it again; so are
// packs of metadata, and shards that are held for others.
func TestDamagedContent(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t)
	source := filled(t, d, 5, 2_500_000, 8)
	d.Stop(t)
	if fsck := object(t, d.Skep(t, "fsck", "--json").OK(t)); fsck["files"] != 5.0 || fsck["pack_files"] == 0.0 || fsck["reread"] != 12.0 {
		t.Errorf("all is well, and fsck says %v", fsck)
	}
	files := matching(t, d.Home, "files/*/*")
	for _, f := range files {
		damage(t, f, 1)
	}
	packs := matching(t, d.Home, "packs/*")
	for _, f := range packs {
		damage(t, f, 1)
	}
	for _, p := range swarm.Peers {
		p.Kill()
	}
	r := d.Skep(t, "fsck", "--repair") // what nobody else is seen to have stays
	r.Fails(t, 1)
	says(t, r.Stdout, "differs here", "kept in pack")
	for line := range strings.Lines(r.Stdout) {
		if strings.HasPrefix(line, "/") && !strings.Contains(line, "it stays as it is") {
			t.Errorf("nobody is there, and fsck --repair says: %s", line)
		}
	}
	for _, p := range swarm.Peers {
		p.Start(t)
	}
	for _, args := range [][]string{{"fsck"}, {"fsck", "--repair"}} {
		r := d.Skep(t, args...)
		t.Logf("%d files and %d packs altered; %s%s", len(files), len(packs), r.Stdout, r.Stderr)
		if r.Code != 1 {
			t.Errorf("exit status %d", r.Code)
		}
		_ = filepath.WalkDir(source, func(path string, e os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(source, path); !e.IsDir() && !strings.Contains(r.Stdout, "/tree/"+rel+": ") {
				t.Errorf("fsck does not name %s", rel)
			}
			return err
		})
		for line := range strings.Lines(r.Stdout) { // nothing is fetched, so nothing else is wrong
			if strings.HasPrefix(line, "/") && !strings.Contains(line, "differs here") && !strings.Contains(line, "kept in pack") {
				t.Errorf("fsck %v says, too: %s", args[1:], line)
			}
		}
		if !strings.Contains(r.Stdout, "kept in pack") {
			t.Error("fsck does not find the damaged packs of metadata")
		}
		for _, dir := range []string{"/", "/tree/", "/tree/d00/"} {
			if !strings.Contains("\n"+r.Stdout, "\n"+dir+": names, attributes") {
				t.Errorf("fsck does not say that what is damaged is of %s", dir)
			}
		}
	}
	if whole := matching(t, d.Home, "packs/*"); !slices.Equal(whole, packs) {
		t.Errorf("of %d packs, there are %d", len(packs), len(whole))
	}
	d.Skep(t, "fsck").OK(t)
	d.Mount(t)
	check(t, source, d.Path("tree"))
	d.Stop(t)

	holders := slices.DeleteFunc(slices.Clone(swarm.Peers), func(p *harness.Peer) bool { return len(p.Shards(t)) == 0 })
	if len(holders) == 0 {
		t.Fatal("nobody has a shard")
	}
	p := holders[0]
	p.Kill()
	shards := matching(t, p.Home, "hosted/groups/*/*")
	for _, f := range shards {
		damage(t, f, 1)
	}
	harness.Skep(t, "--home", p.Home, "fsck").Fails(t, 1, "found")
	harness.Skep(t, "--home", p.Home, "fsck").OK(t)
}

// contentHolders are those of peers that have shards of content, first those that
// have none of metadata.
func contentHolders(t *testing.T, peers []*harness.Peer) []*harness.Peer {
	t.Helper()
	var alone, both []*harness.Peer
	for _, p := range peers {
		content, metadata := 0, 0
		for _, f := range p.Shards(t) {
			if st, err := os.Stat(f); err != nil {
				t.Fatal(err)
			} else if st.Size() > 1<<20 {
				content++
			} else {
				metadata++
			}
		}
		switch {
		case content > 0 && metadata == 0:
			alone = append(alone, p)
		case content > 0:
			both = append(both, p)
		}
	}
	return append(alone, both...)
}

// With --remote, fsck asks the holders what they have, and says of how many packs
// and files there is too little, and which of them cannot be read.
func TestFsckAsksHolders(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 6})
	d := swarm.NewDevice(t)
	d.Mount(t)
	harness.Files(t, d.Path("tree"), 5, 700_000, 9)
	write(t, d.Path("note"), "small enough to lie in its directory")
	d.Sync(t)
	s := d.WaitSafe(t, 60*time.Second)
	content := slices.IndexFunc(s.Codings, func(c control.Coding) bool { return c.Kind == "content" })
	if content < 0 {
		t.Fatalf("codings %+v", s.Codings)
	}
	parity := s.Codings[content].N - s.Codings[content].K
	d.Stop(t)
	count := func(r harness.Result, what string) float64 {
		n, ok := object(t, r.Stdout)[what].(float64)
		if !ok {
			t.Errorf("fsck does not tell %s:\n%s", what, r.Stdout)
		}
		return n
	}
	all := d.Skep(t, "fsck", "--remote", "--json")
	all.OK(t)
	if packs := count(all, "packs"); packs == 0 || count(all, "packs_below_target") != 0 || count(all, "files_below_target") != 0 {
		t.Errorf("of packs that are all safe, fsck says\n%s", all.Stdout)
	}
	if count(all, "reread") != 13 || count(all, "reread_away") != 0 {
		t.Errorf("a second reader sees something else:\n%s", all.Stdout)
	}
	holders := contentHolders(t, swarm.Peers[1:]) // by the first the swarm is joined
	liar := holders[len(holders)-1]
	altered, left := liar.Alter(t) // it states that it has all of it
	r := d.Skep(t, "fsck", "--remote", "--json")
	if r.Code != 1 || count(r, "shards_unreal") == 0 || count(r, "shards_unreal") != float64(altered-left()) || count(r, "packs_below_target") == 0 || count(r, "files_lost") != 0 ||
		!strings.Contains(r.Stdout, "holder "+liar.ID()) {
		t.Errorf("after the shards of %s were altered, exit status %d:\n%s", liar.ID(), r.Code, r.Stdout)
	}
	gone := holders[:parity+1]
	for _, p := range gone {
		p.Destroy(t)
	}
	r = d.Skep(t, "fsck", "--remote", "--json")
	if r.Code != 1 || count(r, "files_lost") != 5 || count(r, "files_below_target") != 5 || count(r, "packs_lost") == 0 {
		t.Errorf("after %d holders went, exit status %d:\n%s", len(gone), r.Code, r.Stdout)
	}
	for i := range 5 {
		if name := fmt.Sprintf("/tree/d%02d/f%04d", i, i); !strings.Contains(r.Stdout, name) {
			t.Errorf("fsck does not name %s", name)
		}
	}
	if strings.Contains(r.Stdout, "/note") {
		t.Error("what is in its directory's pack is called lost")
	}
}

// Right after a recovery, too, fsck asks holders for what is needed alone: what was
// deleted they need not have.
func TestFsckOfHoldersAfterRecovery(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5, DeadAfter: 30 * time.Second})
	d := swarm.NewDevice(t)
	d.Mount(t)
	harness.Files(t, d.Path("old"), 4, 700_000, 3)
	d.Sync(t)
	full := swarm.Hosted(t)
	must(t, os.RemoveAll(d.Path("old")))
	write(t, d.Path("new"), "a few words")
	d.Sync(t)
	harness.Until(t, time.Minute, "holders delete what is not needed", func() (bool, string) {
		now := swarm.Hosted(t)
		return now < full/2, fmt.Sprintf("%d of %d bytes", now, full)
	})
	d.Kill()
	r := swarm.Recover(t, d.Words)
	checked := r.Skep(t, "fsck", "--remote", "--json").OK(t)
	if o := object(t, checked); o["packs"] == 0.0 || o["packs_below_target"] != 0.0 || o["packs_lost"] != 0.0 {
		t.Errorf("of packs that are all there, fsck says\n%s", checked)
	}
}

// matching are the files of a home that match a pattern, at any depth below
// its first part.
func matching(t *testing.T, home, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(home, pattern))
	must(t, err)
	if len(files) == 0 {
		tree := ""
		_ = filepath.WalkDir(home, func(p string, e os.DirEntry, err error) error { tree += p + "\n"; return nil })
		t.Fatalf("nothing in the home matches %s:\n%s", pattern, tree)
	}
	return files
}

// filled mounts a drive and brings it files, synced, as tree; source has the same.
func filled(t *testing.T, d *harness.Device, n, size int, seed uint64) (source string) {
	t.Helper()
	d.Mount(t)
	source = t.TempDir()
	harness.Files(t, source, n, size, seed)
	harness.Rsync(t, "-a", source+"/", d.Path("tree")+"/")
	d.Sync(t)
	return source
}

// check compares the content of all files: right bytes, or an error.
func check(t *testing.T, source, got string) {
	t.Helper()
	wrong := 0
	err := filepath.WalkDir(source, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(source, path)
		want, err := os.ReadFile(path)
		must(t, err)
		b, err := os.ReadFile(filepath.Join(got, rel))
		switch {
		case err != nil:
			wrong++
			t.Logf("%s: %v", rel, err)
		case !bytes.Equal(b, want):
			wrong++
			t.Errorf("%s: wrong bytes were served", rel)
		}
		return nil
	})
	must(t, err)
	if wrong > 0 {
		t.Errorf("%d files cannot be read", wrong)
	}
}

// A journal that was altered where it was known to be on the disk is refused,
// each time, rather than taken for a shorter one in silence.
func TestDamagedJournal(t *testing.T) {
	d := alone(t)
	d.MountAlone(t)
	for i := range 300 {
		write(t, d.Path(fmt.Sprint("file", i)), fmt.Sprint("content ", i))
	}
	flush(t, d.Path("file299"))
	write(t, d.Path("last"), "this record tells what was flushed")
	d.Kill()
	name, good := flip(t, matching(t, d.Home, "state/journal/*"), "content 150")
	for range 2 {
		d.Skep(t, "mount", d.Mnt).Fails(t, 1, "journal is damaged")
	}
	d.Skep(t, "fsck").Fails(t, 1, "journal is damaged")
	// Nothing was thrown away meanwhile.
	must(t, os.WriteFile(name, good, 0o600))
	d.MountAlone(t)
	for i := range 300 {
		has(t, d.Path(fmt.Sprint("file", i)), fmt.Sprint("content ", i))
	}
}

// flush brings a file to the disk.
func flush(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
}

// flip alters one bit of the first of some files that has these bytes, and
// returns the file's name and what it was.
func flip(t *testing.T, files []string, content string) (name string, good []byte) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		if i := bytes.Index(b, []byte(content)); i > 0 {
			good = bytes.Clone(b)
			b[i] ^= 1
			must(t, os.WriteFile(f, b, 0o600))
			return f, good
		}
	}
	t.Fatalf("none of %q has %q", files, content)
	return "", nil
}

// Keys and settings that were altered are refused by name.
func TestDamagedKeys(t *testing.T) {
	for _, file := range []string{"keys", "settings.json", "keyring"} {
		t.Run(file, func(t *testing.T) {
			d := alone(t)
			d.MountAlone(t)
			write(t, d.Path("file"), "content")
			d.Stop(t)
			path := filepath.Join(d.Home, file)
			good, err := os.ReadFile(path)
			must(t, err)
			for _, bad := range [][]byte{nil, good[:len(good)/2], []byte("x" + string(good))} {
				must(t, os.WriteFile(path, bad, 0o600))
				r := d.Skep(t, "mount", d.Mnt)
				if r.Fails(t, 1, file); strings.Contains(r.Stderr, "panic") {
					t.Error(r.Stderr)
				}
			}
			must(t, os.WriteFile(path, good, 0o600))
			d.MountAlone(t)
			has(t, d.Path("file"), "content")
		})
	}
}

// The outputs for scripts are JSON, with the names that scripts rely on.
func TestJSON(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t)
	d.Mount(t)
	write(t, d.Path("file"), strings.Repeat("content", 10_000))
	d.Sync(t)
	d.WaitStatus(t, 60*time.Second, "the account is told", func(s control.Status) bool { return s.Packs > 0 })
	status := object(t, d.Skep(t, "status", "--json", d.Path("file")).OK(t))
	for _, name := range []string{"pending_bytes", "packs", "packs_below_target", "codings", "peers"} {
		if _, ok := status[name]; !ok {
			t.Errorf("status --json has no %s", name)
		}
	}
	fields(t, status["codings"], "class", "k", "n", "groups", "packs")
	fields(t, status["peers"], "id", "addrs", "region", "shards", "state")
	fields(t, status["paths"], "path", "state", "size", "resident")
	repair := object(t, d.Skep(t, "repair", "status", "--json").OK(t))
	if repair["paused"] != false {
		t.Errorf("repair status: %v", repair)
	}
	d.Skep(t, "repair", "pause").OK(t)
	if object(t, d.Skep(t, "repair", "status", "--json").OK(t))["paused"] != true {
		t.Error("repair pause did not pause")
	}
	d.Kill()
	d.MountAlone(t)
	if object(t, d.Skep(t, "repair", "status", "--json").OK(t))["paused"] != true {
		t.Error("that repair is paused is forgotten with the daemon")
	}
	says(t, d.Skep(t, "status").OK(t), "paused (skep repair resume)")
	d.Skep(t, "repair", "resume").OK(t)
	d.Stop(t)
	d.MountAlone(t)
	if object(t, d.Skep(t, "repair", "status", "--json").OK(t))["paused"] != false {
		t.Error("that repair goes on is forgotten with the daemon")
	}
	d.Stop(t)
	if fsck := object(t, d.Skep(t, "fsck", "--json").OK(t)); fsck["files"] != float64(1) {
		t.Errorf("fsck --json: %v", fsck)
	}
	// Also where there is nothing yet, lists are lists.
	empty := alone(t)
	empty.MountAlone(t)
	for name, v := range object(t, empty.Skep(t, "status", "--json").OK(t)) {
		if v == nil {
			t.Errorf("status --json of an empty drive: %s is null", name)
		}
	}
}
