package tree

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"skep/chunker/dag"
)

// A file that changed while nobody had the tree open is compared with what holders
// have, which may take long: meanwhile others look at it, and remove it.
func TestNobodyWaitsForAComparison(t *testing.T) {
	want, compared := pattern(3*dag.ChunkSize, 1), 0
	d, c := evictingDevice(t, Options{})
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)
	file, err := d.files.Open(d.numberOf(ino))
	must(t, err)
	must(t, file.Truncate(2*dag.ChunkSize))
	must(t, file.Close())
	var told []string
	d.opt.Damaged = func(path, what string) { told = append(told, path+": "+what) }
	d.opt.Same = func(_ context.Context, _ dag.File, i int64, chunk []byte) (bool, error) {
		compared++
		done := make(chan error)
		go func() {
			_, err := d.Attr(ctx, ino)
			done <- err
		}()
		select {
		case err := <-done:
			must(t, err)
		case <-time.After(10 * time.Second):
			t.Error("who looks at the file waits")
		}
		return bytes.Equal(chunk, want[i*dag.ChunkSize:(i+1)*dag.ChunkSize]), nil
	}
	d.restart()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer f.Release()
	if compared != 3 {
		t.Errorf("%d chunks were compared", compared)
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("what was cut off did not come back")
	}
	if len(told) != 1 || !strings.Contains(told[0], "/f: pieces of 1 MiB of its content, 1, the first from byte 2097152 on") {
		t.Errorf("told is %q", told)
	}
}
