package mount

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stuck has files of which all but "quick" cannot be read before freed is closed.
type stuck struct {
	*bare
	waits chan struct{} // receives for each read that waits
	freed chan struct{}
}

const quick = 2 // its inode

func (s *stuck) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId = quick
	if name != "quick" {
		out.NodeId = quick + 1 + uint64(len(name))
	}
	out.Attr = fuse.Attr{Ino: out.NodeId, Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: 8 << 20, Owner: *fuse.CurrentOwner()}
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(time.Hour)
	return fuse.OK
}

func (s *stuck) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (s *stuck) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.NodeId != quick {
		s.kernel.Waits(nil)
		s.waits <- struct{}{}
		<-s.freed
	}
	return fuse.ReadResultData(buf[:in.Size]), fuse.OK
}

// readSome reads the beginning of a file, without Go's poller, which asks the kernel
// and so this process.
func readSome(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Read(fd, make([]byte, 64<<10))
	return err
}

// Readers that wait for what nobody answers keep nobody from reading what is there.
func TestReadersWait(t *testing.T) {
	twice(t)
	needFUSE(t)
	const readers = 100
	dir, fs := t.TempDir(), &stuck{newBare(), make(chan struct{}, 1<<16), make(chan struct{})}
	s, err := Mount(dir, fs, Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var all sync.WaitGroup
	defer func() {
		close(fs.freed)
		all.Wait() // a process cannot end that has files of its own mount open
		cancel()
		<-ended
	}()
	for i := range readers {
		all.Go(func() { _ = readSome(filepath.Join(dir, fmt.Sprintf("%0*d", i+1, 0))) })
	}
	for range readers {
		select {
		case <-fs.waits:
		case <-time.After(time.Minute):
			t.Fatal("not all that wait are heard")
		}
	}
	read := make(chan error, 1)
	all.Go(func() { read <- readSome(filepath.Join(dir, "quick")) })
	select {
	case err := <-read:
		must(t, err)
	case <-time.After(time.Minute):
		t.Error("what is there is not read")
	}
}
