package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// Right after a recovery no holder was asked yet: status raises no alarm, says
// so, and soon knows. Of a file it says how safe that is, and which of its
// shards are missing once they are.
func TestStatusAfterRecover(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 20 * time.Second})
	first := swarm.NewDevice(t)
	first.Mount(t)
	content := make([]byte, 2_400_000) // that cannot be compressed
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	write(t, first.Path("file"), string(content))
	write(t, first.Path("dir", "sub", "small"), "content that lies with its name")
	first.Sync(t)
	first.WaitSafe(t, 60*time.Second)
	first.Destroy(t)
	d := swarm.Recover(t, first.Words)
	d.Mount(t)
	harness.Until(t, 60*time.Second, "all holders were asked", func() (bool, string) {
		s := d.Status(t)
		if s.PacksBelowTarget > 0 || s.PacksLost > 0 || s.PacksAtRisk > 0 || s.ShardsMissing > 0 {
			t.Errorf("a false alarm: %+v", s)
		}
		return s.Packs > 0 && s.PacksUnasked == 0, harness.Brief(s)
	})
	if s := d.Status(t); s.AsOf.IsZero() || time.Since(s.AsOf) > time.Minute {
		t.Errorf("status is as of %v", s.AsOf)
	}
	file := pathStatus(t, d, "file")
	if file.State != "safe" || file.Packs == 0 || file.ShardsMissing > 0 || file.Size != 2_400_000 {
		t.Errorf("the file: %+v", file)
	}
	small, dir := filepath.Join("dir", "sub", "small"), pathStatus(t, d, "dir")
	if s := pathStatus(t, d, small); s.State != "safe" || s.Packs == 0 {
		t.Errorf("a small file: %+v", s)
	}
	if dir.State != "safe" || !dir.Folder || dir.Packs == 0 {
		t.Errorf("the directory: %+v", dir)
	}
	text := d.Skep(t, "status", d.Path("file")).OK(t)
	for _, part := range []string{"safe", "with holders in", "as of"} {
		if !strings.Contains(text, part) {
			t.Errorf("status lacks %q:\n%s", part, text)
		}
	}
	d.Skep(t, "repair", "pause").OK(t)
	slices.SortFunc(swarm.Peers, func(a, b *harness.Peer) int { return cmp.Compare(len(b.Shards(t)), len(a.Shards(t))) })
	for _, p := range swarm.Peers[:3] { // of names, too, which are with fewer than hold the file
		p.Destroy(t)
	}
	harness.Until(t, 90*time.Second, "the file's missing shards are told", func() (bool, string) {
		file := pathStatus(t, d, "file")
		return file.State == "out" && file.ShardsMissing > 0 && file.PacksBelowTarget > 0 && len(file.Groups) > 0, fmt.Sprintf("%+v %+v", file, d.Status(t))
	})
	for _, name := range []string{small, "dir", ""} { // whose holders are others, in part, and are missed a little later
		harness.Until(t, 90*time.Second, "names have too few shards", func() (bool, string) {
			s := pathStatus(t, d, name)
			return s.State == "out" && s.PacksBelowTarget > 0, fmt.Sprintf("%q: %+v", name, s)
		})
	}
	for _, p := range swarm.Peers[3:] { // so that nothing goes out
		p.Destroy(t)
	}
	write(t, d.Path("dir", "sub", "other"), "content")
	for _, name := range []string{"dir", ""} {
		if s := pathStatus(t, d, name); s.State != "local" {
			t.Errorf("%q, with something new below: %+v", name, s)
		}
	}
}

// A path that is not there is named, and the exit status says so; what was asked
// of others is told all the same. So is a path outside of the drive.
func TestStatusOfWhatIsNotThere(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.MountAlone(t)
	write(t, d.Path("file"), "content")
	none, outside := d.Path("dir", "none"), filepath.Join(d.Home, "keys")
	r := d.Skep(t, "status", d.Path("file"), none)
	if r.Fails(t, 1, none, "no such file"); !strings.Contains(r.Stdout, d.Path("file")+": local") {
		t.Errorf("nothing is said of the file:\n%s", r.Stdout)
	}
	d.Skep(t, "status", outside).Fails(t, 1, outside, "not in a mount")
	r = d.Skep(t, "status", "--json", d.Path("file"), none, outside)
	r.Fails(t, 1, none, outside)
	paths, _ := object(t, r.Stdout)["paths"].([]any)
	if len(paths) != 3 {
		t.Fatalf("%d paths", len(paths))
	}
	for i, want := range []bool{false, true, true} {
		p, _ := paths[i].(map[string]any)
		if said, _ := p["error"].(string); (said != "") != want {
			t.Errorf("path %d: %v", i, p)
		}
	}
}

// What status tells as a peer's address, another peer can join by.
func TestAddressesInStatusServe(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 3})
	d := swarm.NewDevice(t)
	d.Mount(t)
	calls := swarm.Add(t) // it calls the device, and is called by it at where it listens
	s := d.WaitStatus(t, 60*time.Second, "the device knows four peers", func(s control.Status) bool {
		n := 0
		for _, p := range s.Peers {
			if len(p.Addrs) > 0 {
				n++
			}
		}
		return n == 4
	})
	for _, p := range s.Peers {
		peer := swarm.ByID(p.ID)
		if peer == nil || !slices.Contains(p.Addrs, peer.Addr) {
			t.Errorf("peer %s at %q", p.ID, p.Addrs)
		}
	}
	home := filepath.Join(swarm.Dir, "other")
	cmd := skep("init", "--home", home, "--words-file", home+".words", "--listen", "/ip4/127.0.0.1/tcp/0")
	for _, p := range s.Peers {
		if p.ID == calls.ID() {
			cmd.Args = append(cmd.Args, "--bootstrap", p.Addrs[0])
		}
	}
	harness.Run(t, cmd).OK(t)
	mnt := filepath.Join(swarm.Dir, "other.mnt")
	must(t, os.Mkdir(mnt, 0o755))
	harness.Skep(t, "--home", home, "mount", mnt).OK(t)
	write(t, filepath.Join(mnt, "file"), "content")
	harness.Skep(t, "--home", home, "sync").OK(t)
	if r := harness.Skep(t, "--home", home, "down"); r.Code != 0 || r.Stderr != "" {
		t.Errorf("down, when all is out: %+v", r)
	}
}

func pathStatus(t *testing.T, d *harness.Device, name string) control.PathStatus {
	t.Helper()
	var s control.Status
	if err := json.Unmarshal([]byte(d.Skep(t, "status", "--json", d.Path(name)).OK(t)), &s); err != nil || len(s.Paths) != 1 {
		t.Fatalf("%d paths, %v", len(s.Paths), err)
	}
	return s.Paths[0]
}

// Peers that are gone are missed as soon as somebody needs them, long before they count
// as dead, also if they were gone before this device has heard of them: what cannot be
// read is not called safe.
func TestStatusOfPeersThatAreGone(t *testing.T) {
	t.Run("while it is mounted", func(t *testing.T) { peersGo(t, false) })
	t.Run("before it is mounted", func(t *testing.T) { peersGo(t, true) })
}

func peersGo(t *testing.T, early bool) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 8, DeadAfter: 24 * time.Hour})
	first := swarm.NewDevice(t)
	first.Mount(t)
	content := make([]byte, 3<<20) // that cannot be compressed
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	write(t, first.Path("file"), string(content))
	first.Sync(t)
	first.Destroy(t)
	d := swarm.Recover(t, first.Words)
	if !early {
		d.Mount(t)
	}
	for _, p := range swarm.Peers[1:] {
		p.Kill()
	}
	if early {
		d.Mount(t)
	}
	gone(t, d)
	for _, p := range swarm.Peers[1:] {
		p.Start(t)
	}
	// Who was silent for a while is greeted again after as long a while.
	harness.Until(t, 3*time.Minute, "it can be read again", func() (bool, string) {
		if _, err := os.ReadFile(d.Path("file")); err != nil {
			return false, err.Error()
		}
		s, file := d.Status(t), pathStatus(t, d, "file")
		return file.State != "away" && s.PacksAway == 0, fmt.Sprintf("%+v %+v", file, s)
	})
}

// gone checks what is said when a file cannot be read any more.
func gone(t *testing.T, d *harness.Device) {
	t.Helper()
	harness.Until(t, 60*time.Second, "a file cannot be read", func() (bool, string) {
		_, err := os.ReadFile(d.Path("file"))
		return err != nil, fmt.Sprint(err)
	})
	harness.Until(t, 60*time.Second, "status says so", func() (bool, string) {
		s := d.Status(t)
		// Of the peers, those that nobody asked anything count as alive until they are greeted.
		return s.PacksAway > 0 && s.PacksLost == 0 && harness.Alive(s) < 8, fmt.Sprintf("%+v", s)
	})
	text := d.Skep(t, "status").OK(t)
	if !strings.Contains(text, "cannot be read now: too few holders answer") {
		t.Errorf("status says:\n%s", text)
	}
	says(t, d.Skep(t, "repair", "status").OK(t), "cannot be read now: too few holders answer")
	harness.Until(t, 60*time.Second, "status of the file says so, or that where it lies cannot be read either", func() (bool, string) {
		r := d.Skep(t, "status", d.Path("file"))
		return r.Code == 1 && strings.Contains(r.Stderr, "what leads to it cannot be read now") || strings.Contains(r.Stdout, d.Path("file")+": away"), r.Stdout + r.Stderr
	})
}
