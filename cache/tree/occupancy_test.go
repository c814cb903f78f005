package tree

import "testing"

// TestCountWhileFilesChange: a total that is counted anew while files change is
// right afterwards.
func TestCountWhileFilesChange(t *testing.T) {
	d := newDevice(t, Options{})
	f := d.create(Root, "file")
	defer f.Release()
	writeAt(t, f, pattern(1<<20, 1), 0)
	counts := 0
	must(t, d.countAnew(&d.unsynced64, func(still func() bool) (int64, error) {
		_, n := d.Local() // right, as nothing crashed
		if counts++; counts == 1 {
			writeAt(t, f, pattern(1<<20, 2), 1<<20)
		}
		if still() != (counts > 1) {
			t.Errorf("count %d: still %v", counts, still())
		}
		return n, nil
	}))
	if _, n := d.Local(); n != 2<<20 || counts < 2 {
		t.Errorf("%d bytes are unsynced after %d counts, want %d", n, counts, 2<<20)
	}
	d.unsynced64.Add(1 << 30) // a crash
	must(t, d.RecountUnsynced())
	if _, n := d.Local(); n != 2<<20 {
		t.Errorf("after a crash %d bytes are unsynced, want %d", n, 2<<20)
	}
}
