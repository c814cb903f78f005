package writeback_test

import (
	"os"
	"path/filepath"
	"testing"

	"skep/test/memswarm"
)

// Packs of metadata are kept here only to be read sooner: where the disk does not take
// them, a commit goes out all the same.
func TestCommitWithoutRoomForPacks(t *testing.T) {
	d := newDevice(t, memswarm.New(9, 4, 7))
	want := map[string]string{"dir/": ""}
	put := d.putting(want)
	put("dir/first", []byte("first"))
	d.sync()
	if err := os.RemoveAll(filepath.Join(d.dir, "packs")); err != nil {
		t.Fatal(err)
	}
	put("dir/second", random(2, 100_000))
	d.sync()
	put("dir/third", []byte("third"))
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}
