package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
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

// speed is how fast something is done in memory: MB/s on all cores, and seconds
// of processor time a GiB, which depend less on what else the machine does.
type speed struct{ mbs, processor float64 }

func (a speed) mean(b speed) speed {
	return speed{(a.mbs + b.mbs) / 2, (a.processor + b.processor) / 2}
}

// measured runs fn, which does so many bytes, and returns its speed.
func measured(fn func() (bytes int, err error)) (speed, error) {
	before, begin := processorTime(os.Getpid()), time.Now()
	n, err := fn()
	gib := float64(n) / (1 << 30)
	return speed{float64(n) / 1e6 / time.Since(begin).Seconds(), (processorTime(os.Getpid()) - before) / gib}, err
}

// throughput runs fn on all cores for about a second; fn does n bytes a call,
// with memory of its own.
func throughput(n int, fn func() func()) speed {
	const span = time.Second
	v, _ := measured(func() (int, error) {
		var wg sync.WaitGroup
		var calls atomic.Int64
		begin := time.Now()
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for do := fn(); time.Since(begin) < span; calls.Add(1) {
					do()
				}
			})
		}
		wg.Wait()
		return int(calls.Load()) * n, nil
	})
	return v
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// step is a part of the data's way that is measured by itself.
type step struct {
	name string
	size int           // bytes of plaintext that it does at a time
	make func() func() // makes one that does it, with memory of its own
}

func (s step) speed() speed { return throughput(s.size, s.make) }

// packClass is the class of packs of content.
const packClass = 24

// steps are what each byte has to go through.
func steps(file *os.File, plain []byte) []step {
	coding := erasure.NewCoding(4, 7)
	coded := func(do func(shards [][]byte)) func() func() {
		return func() func() {
			shards := coding.Split(packClass, randomBytes(1<<packClass), nil)
			return func() { do(shards) }
		}
	}
	return []step{
		{"chunk: a file in memory, 1 MiB at a time", chunk, func() func() { return chunker(file) }},
		{"BLAKE3 alone", chunk, func() func() { return func() { blake3.Sum256(plain) } }},
		{"seal: key, compression, cipher, address", chunk, func() func() {
			s, dst := block.NewSealer(secret.Key{1}), make([]byte, 0, block.MaxSealed)
			framed := append(make([]byte, block.Headroom), plain...)
			return func() {
				p, _ := s.PrepareFramed(link.Raw, framed)
				p.Compress(nil)
				p.Seal(dst)
			}
		}},
		{"pack: index and padding", packed * chunk, func() func() { return packer(plain) }},
		{"code 4 of 7", 1 << packClass, coded(func(shards [][]byte) { _ = coding.Encode(shards) })},
		{"shard roots, 7 of 4", 1 << packClass, coded(func(shards [][]byte) {
			for _, s := range shards {
				erasure.RootOf(s)
			}
		})},
		{"code and roots, as they are done", 1 << packClass, coded(func(shards [][]byte) { _, _ = coding.EncodeRoots(shards) })},
	}
}

// packed is how many chunks a pack holds.
const packed = 15

func packer(plain []byte) func() {
	s, _ := block.NewSealer(secret.Key{1}).Seal(link.Raw, plain, nil)
	buf := make([]byte, 0, 1<<packClass)
	return func() {
		b := pack.NewBuilder(packClass, buf)
		for range packed { // blocks are sealed where they lie
			n, _, _ := b.Reserve(len(s.Ciphertext))
			b.Fill(n, s)
		}
		_, _, _ = b.Seal(secret.Key{2})
	}
}

const chunksOfFile = 64

func chunker(file *os.File) func() {
	buf, i := make([]byte, chunk), int64(0)
	return func() {
		_, _ = file.ReadAt(buf, i%chunksOfFile*chunk)
		i++
	}
}

// pipeline measures the steps of the data's way alone and together, on all
// cores, in memory.
func pipeline(c config, r *report) error {
	r.section("The data's way, in memory, on all cores (MB/s of plaintext)")
	file, err := os.CreateTemp("", "skep-bench-")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := errors.Join(os.Remove(file.Name()), fill(file, chunksOfFile*chunk, 0)); err != nil {
		return err
	}
	plain := randomBytes(chunk)
	memcpy := throughput(chunk, func() func() {
		dst := make([]byte, chunk)
		return func() { copy(dst, plain) }
	})
	gcm := throughput(chunk, func() func() {
		dst := make([]byte, 0, chunk+16)
		return func() { secret.SealOnce(secret.Key{1}, dst, append(dst, plain...)) }
	})
	line := func(what string, v speed) {
		r.line(what, "%.0f MB/s\t%.2f s of processor a GiB\t%.2f of memcpy\t%.2f of AES-GCM", v.mbs, v.processor, v.mbs/memcpy.mbs, v.mbs/gcm.mbs)
	}
	line("memcpy", memcpy)
	line("AES-256-GCM alone", gcm)
	var slowest step
	var least speed
	for _, s := range steps(file, plain) {
		v := s.speed()
		line(s.name, v)
		if v.processor > least.processor {
			slowest, least = s, v
		}
	}
	all, why, err := explained(c)
	if err != nil {
		return err
	}
	line("the whole: file → sealed, coded, signed packs", all)
	if why != "" {
		r.line("", "%s", why)
	}
	least = least.mean(slowest.speed())
	r.line("", "%.2f of its slowest step, %s; by processor time %.2f", all.mbs/least.mbs, slowest.name, least.processor/all.processor)
	return nil
}

// explained measures the whole pipeline, and tells what it spends its time on, if
// that is asked.
func explained(c config) (all speed, why string, err error) {
	if !c.why {
		all, err = wholePipeline(func() error { return nil })
		return all, "", err
	}
	var p *profiling
	all, err = wholePipeline(func() (err error) {
		p, err = profileSelf()
		return err
	})
	if err != nil {
		return all, "", err
	}
	why, err = p.shares(context.Background())
	return all, why, err
}

// nowhere is a sink that takes everything at once.
type nowhere struct{}

func (nowhere) Plan(context.Context, erasure.Class, group.Kind) (erasure.Coding, []group.PeerKey, error) {
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
func (small) Plan(_ context.Context, c erasure.Class, _ group.Kind) (erasure.Coding, []group.PeerKey, error) {
	k := min(4, c.MaxK())
	return erasure.NewCoding(k, k+3), make([]group.PeerKey, k+3), nil
}

// wholePipeline commits one file with the real engine, to a sink that costs
// nothing. begin is called before what is measured.
func wholePipeline(begin func() error) (speed, error) {
	dir, err := os.MkdirTemp("", "skep-bench-")
	if err != nil {
		return speed{}, err
	}
	defer os.RemoveAll(dir)
	st, err := state.Open(dir + "/state")
	if err != nil {
		return speed{}, err
	}
	defer st.Close()
	files, err := backing.Open(dir + "/files")
	if err != nil {
		return speed{}, err
	}
	packs, err := packfiles.Open(dir + "/packs")
	if err != nil {
		return speed{}, err
	}
	table := blocks.New(st)
	reader := readthrough.New(table, packs, nil, secret.Key{5})
	t, err := tree.Open(tree.Options{State: st, Backing: files, Content: reader, Device: 1})
	if err != nil {
		return speed{}, err
	}
	defer t.Close()
	var b state.Batch
	blocks.SetCounted(&b)
	if _, err := st.Apply(&b); err != nil {
		return speed{}, err
	}
	e, err := writeback.New(writeback.Config{State: st, Tree: t, Table: table, Reader: reader, Packs: packs,
		Sink: small{}, Publish: func(context.Context, commit.Head) error { return nil },
		Device: ed25519.NewKeyFromSeed(make([]byte, 32)), Root: secret.Key{1}, Names: secret.Key{5},
		Read: secret.Key{6}, Convergence: secret.Key{7}, Epoch: 1, ContentClass: 24,
		Timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return speed{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = e.Run(ctx) }()
	const size = 768 << 20
	f, _, err := t.Create(ctx, tree.Root, "file", 0o600, os.O_RDWR, tree.Owner{})
	if err != nil {
		return speed{}, err
	}
	rnd := rand.NewChaCha8([32]byte{2})
	p := make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		_, _ = rnd.Read(p)
		if _, err := f.WriteAt(ctx, p, off, false); err != nil {
			return speed{}, err
		}
	}
	f.Release()
	if err := errors.Join(touch(512<<20), begin()); err != nil {
		return speed{}, err
	}
	return measured(func() (int, error) { return size, e.Sync(ctx) })
}
