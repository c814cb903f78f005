package main

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"skep/cache/backing"
	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"

	"github.com/zeebo/blake3"
)

const chunk = 1 << 20

// throughput runs fn on all cores for about a second and returns MB/s; fn does
// n bytes a call, with memory of its own.
func throughput(n int, fn func() func()) float64 {
	const span = time.Second
	var wg sync.WaitGroup
	var mu sync.Mutex // guards total
	total := 0
	begin := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			do, calls := fn(), 0
			for time.Since(begin) < span {
				do()
				calls++
			}
			mu.Lock()
			total += calls
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total*n) / 1e6 / time.Since(begin).Seconds()
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// pipeline measures the steps of the data's way alone and together, on all
// cores, in memory.
func pipeline(r *report) error {
	r.section("The data's way, in memory, on all cores (MB/s of plaintext)")
	plain := randomBytes(chunk)
	memcpy := throughput(chunk, func() func() {
		dst := make([]byte, chunk)
		return func() { copy(dst, plain) }
	})
	gcm := throughput(chunk, func() func() {
		dst := make([]byte, 0, chunk+16)
		return func() { secret.SealOnce(secret.Key{1}, dst, append(dst, plain...)) }
	})
	hash := throughput(chunk, func() func() { return func() { blake3.Sum256(plain) } })
	seal := throughput(chunk, func() func() {
		s, dst := block.NewSealer(secret.Key{1}), make([]byte, 0, block.MaxSealed)
		return func() { _, _ = s.Seal(link.Raw, plain, dst) }
	})
	const class = 24
	packed := throughput(15*chunk, func() func() {
		s, _ := block.NewSealer(secret.Key{1}).Seal(link.Raw, plain, nil)
		buf := make([]byte, 0, 1<<class)
		return func() {
			b := pack.NewBuilder(class, buf)
			for range 15 {
				_, _ = b.Add(s)
			}
			_, _, _ = b.Seal(secret.Key{2})
		}
	})
	coding := erasure.NewCoding(4, 7)
	code := throughput(1<<class, func() func() {
		shards := coding.Split(class, randomBytes(1<<class), nil)
		return func() { _ = coding.Encode(shards) }
	})
	roots := throughput(1<<class, func() func() {
		shards := coding.Split(class, randomBytes(1<<class), nil)
		return func() {
			for _, s := range shards {
				erasure.RootOf(s)
			}
		}
	})
	both := throughput(1<<class, func() func() {
		shards := coding.Split(class, randomBytes(1<<class), nil)
		return func() { _, _ = coding.EncodeRoots(shards) }
	})
	r.rate("memcpy", memcpy, 0, "")
	r.rate("AES-256-GCM alone", gcm, memcpy, "memcpy")
	r.rate("BLAKE3 alone", hash, memcpy, "memcpy")
	r.rate("seal: key, compression, cipher, address", seal, gcm, "AES-GCM")
	r.rate("pack", packed, memcpy, "memcpy")
	r.rate("code 4 of 7", code, memcpy, "memcpy")
	r.rate("shard roots, 7 of 4", roots, gcm, "AES-GCM")
	r.rate("code and roots together", both, gcm, "AES-GCM")
	whole, spent, err := wholePipeline()
	if err != nil {
		return err
	}
	slowest := min(gcm, hash, seal, packed, code, roots)
	r.rate("whole pipeline: file → sealed, coded, signed packs", whole, slowest, "its slowest step alone")
	r.line("", "%.2f of AES-GCM alone, %.2f of memcpy, %.2f s of processor a GiB", whole/gcm, whole/memcpy, spent)
	return nil
}

// nowhere is a sink that takes everything at once.
type nowhere struct{}

func (nowhere) Plan(context.Context, erasure.Class) (erasure.Coding, []group.PeerKey, error) {
	return erasure.NewCoding(4, 7), make([]group.PeerKey, 7), nil
}
func (nowhere) Lease(context.Context, group.Group, []byte) (group.SlotSet, error) {
	return group.SlotSet{}, nil
}
func (nowhere) Store(_ context.Context, g group.Group, _, _ []byte, _ [][]byte) (s group.SlotSet, err error) {
	for i := range g.Slots {
		s.Add(i)
	}
	return s, nil
}

type small struct{ nowhere }

// Plan codes small packs with the k that their class allows.
func (small) Plan(_ context.Context, c erasure.Class) (erasure.Coding, []group.PeerKey, error) {
	k := min(4, c.MaxK())
	return erasure.NewCoding(k, k+3), make([]group.PeerKey, k+3), nil
}

// wholePipeline commits one file with the real engine, to a sink that costs
// nothing, and returns MB/s, and seconds of processor time a GiB.
func wholePipeline() (mbs, spent float64, err error) {
	dir, err := os.MkdirTemp("", "skep-bench-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	st, err := state.Open(dir + "/state")
	if err != nil {
		return 0, 0, err
	}
	defer st.Close()
	files, err := backing.Open(dir + "/files")
	if err != nil {
		return 0, 0, err
	}
	packs, err := packfiles.Open(dir + "/packs")
	if err != nil {
		return 0, 0, err
	}
	table := blocks.New(st)
	reader := readthrough.New(table, packs, nil, secret.Key{5})
	t, err := tree.Open(tree.Options{State: st, Backing: files, Content: reader, Device: 1})
	if err != nil {
		return 0, 0, err
	}
	defer t.Close()
	var b state.Batch
	blocks.SetCounted(&b)
	if _, err := st.Apply(&b); err != nil {
		return 0, 0, err
	}
	e, err := writeback.New(writeback.Config{State: st, Tree: t, Table: table, Reader: reader, Packs: packs,
		Sink: small{}, Publish: func(context.Context, commit.Head) error { return nil },
		Device: ed25519.NewKeyFromSeed(make([]byte, 32)), Root: secret.Key{1}, Names: secret.Key{5},
		Read: secret.Key{6}, Convergence: secret.Key{7}, Epoch: 1, ContentClass: 24,
		Timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = e.Run(ctx) }()
	const size = 768 << 20
	f, _, err := t.Create(ctx, tree.Root, "file", 0o600, os.O_RDWR, tree.Owner{})
	if err != nil {
		return 0, 0, err
	}
	rnd := rand.NewChaCha8([32]byte{2})
	p := make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		_, _ = rnd.Read(p)
		if _, err := f.WriteAt(ctx, p, off, false); err != nil {
			return 0, 0, err
		}
	}
	f.Release()
	before := processorTime(os.Getpid())
	took, err := timed(func() error { return e.Sync(ctx) })
	return size / 1e6 / took, (processorTime(os.Getpid()) - before) / size * (1 << 30), err
}
