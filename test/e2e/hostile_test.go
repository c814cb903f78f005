package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"skep/net/client"
	skephost "skep/net/host"
	"skep/net/wire"
	"skep/test/harness"
	"skep/test/storetest"
)

// attackers is how many there are.
const attackers = 6

// Bounds of a peer, whatever others do to it.
const (
	peerMemory = 128 << 20
	peerFiles  = 1024
)

// TestHostileSwarm has several peers do their worst to one at the same time,
// while one honest peer stores and reads. It measures the whole, as one process: it
// lives, its memory and open files stay within bounds that leave room for all its
// defences together, and the honest one is served within a minute. It does not tell
// that any one defence works, for others step in: that each of the gates, the pace and
// the patience does its part is for TestGreedyPeer, TestSlowPeersMakeRoom,
// TestSlowPeers and their neighbours in net/holder.
func TestHostileSwarm(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 1})
	target := swarm.Peers[0]
	infos, err := skephost.ParseAddrs([]string{target.Addr})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var attacks sync.WaitGroup
	long := longManifests(t, newAttacker(t, 99, infos[0]))
	for i := range attackers {
		a := newAttacker(t, uint64(100+i), infos[0])
		a.long = long
		for _, attack := range []func(context.Context){a.shards, a.silence, a.manifests, a.messages, a.requests} {
			attacks.Go(func() { attack(ctx) })
		}
	}
	most := watch(t, target.Process().PID(), 5*time.Second)
	honest(t, newAttacker(t, 1, infos[0]), infos[0])
	cancel()
	attacks.Wait()
	memory, files := most()
	t.Logf("%d MiB of memory at most, %d files", memory>>20, files)
	if memory > peerMemory && !harness.RaceDetected(t) { // the detector takes several times as much
		t.Errorf("%d MiB of memory", memory>>20)
	}
	if files > peerFiles {
		t.Errorf("%d open files", files)
	}
}

// honest stores and reads, with as many attempts as a swarm makes.
func honest(t *testing.T, a *attacker, target peer.AddrInfo) {
	t.Helper()
	key, err := skephost.Key(target.ID)
	must(t, err)
	o := storetest.NewOwner(1, 20, 2, 3)
	_, lease := o.Lease(1, time.Now().Add(24*time.Hour).Unix())
	p := o.Pack(t, 0)
	c := client.New(a.host, client.Options{})
	for what, do := range map[string]func() error{
		"store": func() error {
			if _, err := c.Admit(t.Context(), key, lease, 1); err != nil {
				return err
			}
			return c.Put(t.Context(), key, p.Word, 1, p.Shards[1])
		},
		"hello": func() error { _, err := c.Hello(t.Context(), key); return err },
	} {
		harness.Until(t, 60*time.Second, "an honest peer can "+what, func() (bool, string) {
			err := do()
			return err == nil, fmt.Sprint(err)
		})
	}
	if _, err := c.Get(t.Context(), key, &p.Manifest, 1, 0, p.Manifest.ShardSize()); err != nil {
		t.Logf("a first attempt to read: %v", err)
		harness.Until(t, 60*time.Second, "an honest peer can read", func() (bool, string) {
			_, err := c.Get(t.Context(), key, &p.Manifest, 1, 0, p.Manifest.ShardSize())
			return err == nil, fmt.Sprint(err)
		})
	}
}

// attacker is one hostile peer.
type attacker struct {
	host   host.Host
	target peer.AddrInfo
	owner  *storetest.Owner
	pack   storetest.Pack
	lease  []byte
	long   *storetest.Owner // of a group with many long manifests
}

// longManifests stores shards of a group whose manifests are as long as can be.
func longManifests(t *testing.T, a *attacker) *storetest.Owner {
	t.Helper()
	o := storetest.NewOwner(98, 20, 16, 128)
	_, lease := o.Lease(1, time.Now().Add(24*time.Hour).Unix())
	key, err := skephost.Key(a.target.ID)
	must(t, err)
	c := client.New(a.host, client.Options{})
	_, err = c.Admit(t.Context(), key, lease, 0)
	must(t, err)
	p := o.Pack(t, 0)
	for n := range uint16(100) { // the same shard, under every number
		m := p.Manifest
		m.Number = n
		must(t, c.Put(t.Context(), key, m.Sign(o.Key), 0, p.Shards[0]))
	}
	return o
}

func newAttacker(t *testing.T, seed uint64, target peer.AddrInfo) *attacker {
	t.Helper()
	h, err := skephost.New(skephost.Config{Key: storetest.Key(seed), Listen: nil, Resources: &network.NullResourceManager{}})
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	must(t, h.Connect(t.Context(), target))
	a := &attacker{host: h, target: target, owner: storetest.NewOwner(seed, 22, 1, 2)}
	a.pack = a.owner.Pack(t, 0)
	_, a.lease = a.owner.Lease(1, time.Now().Add(24*time.Hour).Unix())
	key, err := skephost.Key(target.ID)
	must(t, err)
	c := client.New(h, client.Options{})
	harness.Until(t, 60*time.Second, "the attacker is admitted", func() (bool, string) {
		_, err := c.Admit(t.Context(), key, a.lease, 0)
		return err == nil, fmt.Sprint(err)
	})
	return a
}

// open opens a stream and sends something on it.
func (a *attacker) open(ctx context.Context, p protocol.ID, b []byte) network.Stream {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := a.host.NewStream(ctx, a.target.ID, p)
	if err != nil {
		return nil
	}
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := s.Write(b); err != nil {
		_ = s.Reset()
		return nil
	}
	return s
}

// over waits a moment and reports whether the attack is over.
func over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(20 * time.Millisecond):
		return false
	}
}

// shards brings large shards, most of each, again and again.
func (a *attacker) shards(ctx context.Context) {
	frame := wire.AppendRequest(nil, &wire.PutRequest{Manifest: a.pack.Word}, len(a.pack.Shards[0]))
	for !over(ctx) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if s := a.open(ctx, wire.Protocol, frame); s != nil {
					_, _ = s.Write(a.pack.Shards[0][:1<<20])
					<-time.After(100 * time.Millisecond)
					_ = s.Reset()
				}
			})
		}
		wg.Wait()
	}
}

// silence opens streams and says nothing on them.
func (a *attacker) silence(ctx context.Context) {
	var open []network.Stream
	for !over(ctx) {
		for _, p := range []protocol.ID{wire.Protocol, "/ipfs/id/1.0.0", "/skep/kad/1.0.0"} {
			if s := a.open(ctx, p, nil); s != nil && len(open) < 500 {
				open = append(open, s)
			}
		}
	}
	for _, s := range open {
		_ = s.Reset()
	}
}

// manifests asks for long answers and takes none.
func (a *attacker) manifests(ctx context.Context) {
	m := wire.ManifestsRequest{Group: a.long.ID}
	for n := range uint16(256) {
		m.Wanted.Add(n)
	}
	for !over(ctx) {
		_ = a.open(ctx, wire.Protocol, wire.AppendRequest(nil, &m, 0))
	}
}

// messages announces long messages to the directory.
func (a *attacker) messages(ctx context.Context) {
	for !over(ctx) {
		for _, n := range []uint64{4 << 20, 32 << 10} {
			_ = a.open(ctx, "/skep/kad/1.0.0", append(binary.AppendUvarint(nil, n), make([]byte, 16<<10)...))
		}
	}
}

// requests asks small questions as fast as it can.
func (a *attacker) requests(ctx context.Context) {
	ask := wire.AppendRequest(nil, &wire.StatementRequest{Group: a.owner.ID}, 0)
	for ctx.Err() == nil {
		if s := a.open(ctx, wire.Protocol, ask); s != nil {
			_ = s.CloseWrite()
			_, _ = s.Read(make([]byte, 1024))
			_ = s.Close()
		}
	}
}

// watch looks at a process for some time, and then returns what tells how much
// memory it had at most until now, and how many open files.
func watch(t *testing.T, pid int, d time.Duration) func() (memory int64, files int) {
	t.Helper()
	files := 0
	look := func() {
		fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
		if err != nil {
			t.Fatalf("the peer is gone: %v", err)
		}
		files = max(files, len(fds))
	}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		look()
	}
	return func() (int64, int) {
		look()
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		must(t, err)
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
				kib, err := strconv.ParseInt(f[1], 10, 64)
				must(t, err)
				return kib << 10, files
			}
		}
		t.Fatal("no VmHWM")
		return 0, 0
	}
}
