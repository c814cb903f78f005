package cli

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
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
	first.Sync(t)
	first.WaitSafe(t, 30*time.Second)
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
	text := d.Skep(t, "status", d.Path("file")).OK(t)
	for _, part := range []string{"safe", "with holders in", "as of"} {
		if !strings.Contains(text, part) {
			t.Errorf("status lacks %q:\n%s", part, text)
		}
	}
	d.Skep(t, "repair", "pause").OK(t)
	for _, p := range swarm.Peers[:3] { // all but one hold something
		p.Destroy(t)
	}
	harness.Until(t, 90*time.Second, "the file's missing shards are told", func() (bool, string) {
		file := pathStatus(t, d, "file")
		return file.State == "out" && file.ShardsMissing > 0 && file.PacksBelowTarget > 0 && len(file.Groups) > 0, fmt.Sprintf("%+v %+v", file, d.Status(t))
	})
}

func pathStatus(t *testing.T, d *harness.Device, name string) control.PathStatus {
	t.Helper()
	var s control.Status
	if err := json.Unmarshal([]byte(d.Skep(t, "status", "--json", d.Path(name)).OK(t)), &s); err != nil || len(s.Paths) != 1 {
		t.Fatalf("%d paths, %v", len(s.Paths), err)
	}
	return s.Paths[0]
}
