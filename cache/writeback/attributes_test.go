package writeback_test

import (
	"bytes"
	"fmt"
	"testing"

	"skep/test/memswarm"
)

// Of a folder whose files have large attributes a commit gathers some at a time, and takes
// all.
func TestLargeAttributes(t *testing.T) {
	d := newDevice(t, memswarm.New(9, 4, 7))
	value := random(1, 64<<10)
	want := map[string]string{}
	var names []string
	for i := range 300 {
		name := fmt.Sprint("f", i)
		d.put(name, []byte("x"))
		ino := must(d.tree.Find(ctx, name)).Ino
		if err := d.tree.SetXattr(ctx, ino, "user.a", value, 0); err != nil {
			t.Fatal(err)
		}
		want[name], names = "x", append(names, name)
	}
	cut := must(d.tree.Cut())
	n, err := d.engine.AtOnce(ctx, cut, names)
	cut.Close()
	if err != nil || n != 256 {
		t.Errorf("%d of them at once, %v", n, err)
	}
	d.sync()
	check(t, d.committed(), want)
	d.forgetJournal()
	d.loseIndex()
	d.open(nil)
	for _, name := range names {
		ino := must(d.tree.Find(ctx, name)).Ino
		if got := must(d.tree.GetXattr(ctx, ino, "user.a")); !bytes.Equal(got, value) {
			t.Fatalf("%s: %d bytes came back", name, len(got))
		}
	}
}
