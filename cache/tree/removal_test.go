package tree

import (
	"errors"
	"io/fs"
	"testing"
)

// Content that came after a cut is given up as soon as it is deleted, however long
// the commit takes; what was there before waits for its end.
func TestDeletedContentOfLaterGoesDuringACommit(t *testing.T) {
	d := newDevice(t, Options{})
	there := func(number uint64) bool {
		t.Helper()
		_, err := d.files.Stat(number)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	content := pattern(InlineMax+1, 1)
	write := func(name string) (Ino, uint64) {
		ino := d.write(Root, name, content)
		return ino, d.files.Last()
	}
	remove := func(ino Ino, name string) {
		t.Helper()
		err := d.Unlink(ctx, Root, name)
		d.Forget(ino)
		if err = errors.Join(err, d.Sync()); err != nil {
			t.Fatal(err)
		}
	}
	first, before := write("before")
	cut, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	second, later := write("later")
	if later <= before || !there(before) || !there(later) {
		t.Fatal("the test does not make backing files")
	}
	remove(first, "before")
	remove(second, "later")
	if there(later) {
		t.Error("what came after the cut stays while the commit is under way")
	}
	if !there(before) {
		t.Error("what the commit has to read is gone")
	}
	cut.Close()
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if there(before) {
		t.Error("nobody gave up what the commit had to read")
	}
}
