package tree

import (
	"fmt"
	"os"
	"testing"
)

// What is known of files that are open for writing may be more than one record of the
// journal takes: it is written in parts.
func TestCutOfManyOpenFiles(t *testing.T) {
	d := newDevice(t, Options{Passthrough: true})
	const files = 2000
	name := func(i int) string { return fmt.Sprintf("%0255d", i) }
	for i := range files {
		f, _, err := d.Create(ctx, Root, name(i), 0o644, os.O_WRONLY|os.O_EXCL, Owner{})
		must(t, err)
		defer f.Release()
		writeAlone(t, f, []byte("soft"), 0)
	}
	before := d.st.Seq()
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	if n := cut.Seq() - before; n < 2 {
		t.Errorf("all of it went into %d record", n)
	}
	for i := range files {
		ino, _, err := cut.Entry(Root, name(i))
		must(t, err)
		in, ok, err := cut.Inode(ino)
		must(t, err)
		if !ok || !in.Dirty || in.Record.Size != 4 {
			t.Fatalf("file %d has %d bytes, dirty: %v", i, in.Record.Size, in.Dirty)
		}
	}
}
