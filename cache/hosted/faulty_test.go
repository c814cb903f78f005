package hosted_test

import (
	"context"
	"math"
	"path"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/test/storetest"
)

// faulty is a folder on a disk that fails to read some of what is there.
type faulty struct {
	dir  string
	bad  atomic.Pointer[string] // pattern of paths in it that cannot be read
	left atomic.Int64           // how often one of them cannot be
}

// fault mounts a faulty folder until the test ends. It skips the test where nothing can
// be mounted.
func fault(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{dir: t.TempDir()}
	f.fail("nothing")
	root := &fs.LoopbackRoot{Path: t.TempDir()}
	root.RootNode = &faultyNode{&fs.LoopbackNode{RootData: root}, f}
	srv, err := fs.Mount(f.dir, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}})
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// fail has reads fail of paths that match a pattern, and of no others.
func (f *faulty) fail(pattern string) {
	f.bad.Store(&pattern)
	f.left.Store(math.MaxInt64)
}

type faultyNode struct {
	*fs.LoopbackNode
	f *faulty
}

func (n *faultyNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultyNode{child.(*fs.LoopbackNode), n.f}
}

func (n *faultyNode) isBad() bool {
	bad, err := path.Match(*n.f.bad.Load(), n.Path(n.Root()))
	return bad && err == nil && n.f.left.Add(-1) >= 0
}

func (n *faultyNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.isBad() {
		return nil, 0, syscall.EIO
	}
	return n.LoopbackNode.Open(ctx, flags)
}

func (n *faultyNode) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if n.isBad() {
		return nil, 0, syscall.EIO
	}
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

// What a disk cannot read when the store is opened is not removed, and held again when
// it can be read.
func TestDiskThatFailsAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		bad     string
		held    int // of three shards
		leftOut int
	}{
		"one head":           {"groups/*/000-*", 3, 0},
		"all heads":          {"groups/*/0*", 0, 1},
		"the lease":          {"groups/*/lease", 3, 0},
		"the group's folder": {"groups/*", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			disk := fault(t)
			s, o := filled(t, disk.dir, 3)
			want, _ := s.Holding(o.ID)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			disk.fail(c.bad)
			s = open(t, disk.dir, 64<<20)
			if h, _ := s.Holding(o.ID); h.Held.Count() != c.held || len(s.LeftOut()) != c.leftOut {
				t.Errorf("%d shards are held; left out: %v", h.Held.Count(), s.LeftOut())
			}
			l, word := o.Lease(5, storetest.Until)
			if _, err := s.Admit(l, word, 1, group.PeerKey{}); (err == nil) != (c.leftOut == 0) {
				t.Errorf("a lease: %v", err)
			}
			_ = s.Close()

			disk.fail("nothing")
			s = open(t, disk.dir, 64<<20)
			if h, _ := s.Holding(o.ID); h.Held != want.Held || h.Slot != 1 {
				t.Errorf("%d shards are held when all can be read", h.Held.Count())
			}
			for i := range uint16(3) {
				storetest.Check(t, s, o.Pack(t, i), 1)
			}
		})
	}
}

// A lease that could not be read when the store was opened is read later, before another
// one takes its place: what it calls dead stays so.
func TestLeaseThatIsReadLater(t *testing.T) {
	for name, later := range map[string]func(*hosted.Store, *storetest.Owner) error{
		"verified": func(s *hosted.Store, o *storetest.Owner) error { return s.VerifyLease(o.ID) },
		"brought": func(s *hosted.Store, o *storetest.Owner) error {
			l, word := o.Lease(3, storetest.Until)
			_, err := s.Admit(l, word, 1, group.PeerKey{1})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := fault(t)
			s, o := filled(t, disk.dir, 1)
			want, _ := s.Holding(o.ID)
			_ = s.Close()
			disk.fail("groups/*/lease")
			s = open(t, disk.dir, 64<<20)
			if h, ok := s.Holding(o.ID); !ok || h.Word != nil {
				t.Fatalf("the lease is there: %v", ok)
			}
			disk.fail("nothing")
			if err := later(s, o); err != nil {
				t.Fatal(err)
			}
			got, _ := s.Holding(o.ID)
			if got.Dead != want.Dead || got.Last != want.Last || got.From != want.From || string(got.Word) != string(want.Word) {
				t.Errorf("the account is %+v, was %+v", got, want)
			}
		})
	}
}

// One read of a head that fails costs no shard.
func TestHeadThatCannotBeReadOnce(t *testing.T) {
	disk := fault(t)
	s, o := filled(t, disk.dir, 1)
	_ = s.Close()
	s = open(t, disk.dir, 64<<20)
	name, err := filepath.Rel(disk.dir, shardFiles(t, disk.dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	disk.fail(name)
	disk.left.Store(1)
	if _, err := s.Manifest(o.ID, 0); err == nil {
		t.Error("the manifest was read")
	}
	storetest.Check(t, s, o.Pack(t, 0), 1)
}
