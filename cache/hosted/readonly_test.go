package hosted_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"skep/chunker/erasure"
)

// A damaged shard whose file cannot be removed, as on a disk that the kernel has made
// read-only, is not said to be held, nor acknowledged when it is brought again.
func TestDamagedOnAReadOnlyDisk(t *testing.T) {
	dir := t.TempDir()
	s, o := filled(t, dir, 3)
	for _, f := range shardFiles(t, dir) {
		flip(t, f, fileSize(t, f)-100)
	}
	groups := filepath.Join(dir, "groups")
	if err := unix.Mount(groups, groups, "", unix.MS_BIND, ""); err != nil {
		t.Skip("nothing can be mounted here:", err)
	}
	defer unix.Unmount(groups, unix.MNT_DETACH)
	if err := unix.Mount("", groups, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Skip("nothing can be made read-only here:", err)
	}
	if err := s.WriteSamples(&bytes.Buffer{}, o.ID, 1, erasure.Nonce{1}, 4); err == nil {
		t.Error("an audit was answered with damage")
	}
	g, _ := s.Holding(o.ID)
	if g.Held.Has(1) {
		t.Error("what is damaged is said to be held")
	}
	p := o.Pack(t, 1)
	if err := s.PutShard(&p.Manifest, p.Word, g.Slot, bytes.NewReader(p.Shards[g.Slot])); err == nil {
		t.Error("a shard was acknowledged that cannot be written")
	}
}
