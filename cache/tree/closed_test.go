package tree

import (
	"os"
	"testing"
)

// What was written to a file that is here in part counts as changed after the tree
// was closed and opened again.
func TestWrittenBeforeClose(t *testing.T) {
	d, _, _, ino, _ := remote(t, 2)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	writeAt(t, f, []byte("changed"), 10)
	f.Release()
	d.Close()
	d.restart()
	cf := d.openCut(ino)
	if r := cf.Changed(); len(r) == 0 || r[0].From != 0 {
		t.Errorf("changed: %v", r)
	}
}
