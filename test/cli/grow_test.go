package cli

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"skep/test/harness"
)

// A drive that was begun with one peer is not called safe. When others have come, all
// of it is stored again with them, and its words are kept by them, too: then that peer
// and the device may be lost.
func TestDriveThatBeganWithOnePeer(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	d := swarm.NewDevice(t)
	d.Mount(t)
	files := someFiles(t, d, 300_000)
	synced := d.Skep(t, "sync", "--timeout", "80s")
	synced.OK(t)
	if !strings.Contains(synced.Stderr, "the loss of no holder") {
		t.Errorf("sync says nothing of it: %q", synced.Stderr)
	}
	d.WaitSafe(t, 60*time.Second)
	file := pathStatus(t, d, "file")
	if file.State != "out" || file.PacksFrail == 0 || file.PacksWeak != 0 {
		t.Errorf("the file: %+v", file)
	}
	text := d.Skep(t, "status", d.Path("file")).OK(t)
	for _, part := range []string{"out (", "safe only as long as every holder"} {
		if !strings.Contains(text, part) {
			t.Errorf("status lacks %q:\n%s", part, text)
		}
	}
	for range 5 {
		swarm.Add(t)
	}
	harness.Until(t, 90*time.Second, "all is stored again", func() (bool, string) {
		d.Sync(t)
		s, file := d.Status(t), pathStatus(t, d, "file")
		return harness.Alive(s) == 6 && s.PacksFrail+s.PacksWeak == 0 && file.State == "safe", fmt.Sprintf("%+v %s %+v", file, harness.Brief(s), s.Codings)
	})
	d.Sync(t)
	comesBack(t, swarm, d, files)
}

// The one peer that a drive began with is away, which is no loss, when others have come:
// what it alone has is stored again from what is here. Then that peer may stay away.
func TestDriveWhoseOnlyPeerIsAway(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1, DeadAfter: 72 * time.Hour})
	d := swarm.NewDevice(t)
	d.Mount(t)
	files := someFiles(t, d, 3_000_000)
	d.Sync(t)
	d.Stop(t)
	swarm.Add(t)
	swarm.Peers[0].Kill()
	for range 4 {
		swarm.Add(t)
	}
	d.Mount(t, "--bootstrap", swarm.Bootstrap())
	harness.Until(t, 90*time.Second, "all is stored again", func() (bool, string) {
		synced := d.Skep(t, "sync", "--timeout", "80s")
		s := d.Status(t)
		return synced.Code == 0 && s.PacksFrail+s.PacksWeak == 0, fmt.Sprintf("%s %d frail, %d weak, %s", synced.Stderr, s.PacksFrail, s.PacksWeak, harness.Brief(s))
	})
	comesBack(t, swarm, d, files)
}

// someFiles writes one file of this size that cannot be compressed, and a small one.
func someFiles(t *testing.T, d *harness.Device, size int) map[string]string {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	files := map[string]string{"file": string(content), "dir/small": "a few words"}
	for name, content := range files {
		write(t, d.Path(name), content)
	}
	return files
}

// comesBack loses a device and the peer that it began with, and has the words bring back
// its files.
func comesBack(t *testing.T, swarm *harness.Swarm, d *harness.Device, files map[string]string) {
	t.Helper()
	d.Destroy(t)
	swarm.Peers[0].Destroy(t)
	back := swarm.Recover(t, d.Words)
	back.Mount(t)
	for name, want := range files {
		if got, err := os.ReadFile(back.Path(name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// While nobody has noticed yet that a holder is away, a pack can go out to one other
// alone. Sync waits until it lies with two, or says that there are not as many.
func TestSyncWhileAHolderIsAway(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 3, DeadAfter: 72 * time.Hour})
	d := swarm.NewDevice(t)
	d.Mount(t)
	content := func(seed byte) string {
		b := make([]byte, 3_000_000)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
		return string(b)
	}
	write(t, d.Path("before"), content(1))
	d.Sync(t)
	d.WaitSafe(t, time.Minute)
	holders := contentHolders(t, swarm.Peers)
	if len(holders) != 2 {
		t.Fatalf("%d of three peers hold it", len(holders))
	}
	holders[0].Kill()
	write(t, d.Path("meanwhile"), content(2))
	synced := d.Skep(t, "sync", "--timeout", "80s")
	synced.OK(t)
	if p := pathStatus(t, d, "meanwhile"); p.PacksFrail > 0 || strings.Contains(synced.Stderr, "no holder") {
		t.Errorf("with two peers it says %q, and of the file %+v", synced.Stderr, p)
	}
	holders[1].Kill()
	write(t, d.Path("last"), content(3))
	synced = d.Skep(t, "sync", "--timeout", "80s")
	synced.OK(t)
	if p := pathStatus(t, d, "last"); p.PacksFrail == 0 || p.State == "safe" || !strings.Contains(synced.Stderr, "the loss of no holder") {
		t.Errorf("with one peer it says %q, and of the file %+v", synced.Stderr, p)
	}
}
