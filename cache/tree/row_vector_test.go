package tree

import (
	"reflect"
	"testing"

	"skep/chunker/link"
	"skep/test/vectors"
)

func goldenRow() row {
	return row{
		flags: flagBacking | flagPartial | flagDirty, mode: modeReg | 0o644, nlink: 1, uid: 1000, gid: 100, rdev: 0x801,
		size: 5 << 30, atime: Time{1, 2}, mtime: Time{-3, 999_999_999}, ctime: Time{1_800_000_000, 5}, btime: Time{7, 8},
		parent: 1, name: "name", backing: 0x1234, cookie: 9, content: link.Link{Codec: link.DagPB, Hash: link.Hash{1}},
		contentSize: 4 << 30, dirtyEpoch: 77, local: 3 << 30, room: 4096,
	}
}

func TestRowVectors(t *testing.T) {
	r := goldenRow()
	vectors.Check(t, "inode", "the row of a file of 5 GiB", r.encode())
	if got, err := decodeRow(r.encode()); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	dir := row{flags: flagLoaded, mode: modeDir | 0o755, nlink: 2, parent: Root}
	vectors.Check(t, "directory", "the row of a new directory", dir.encode())

	e := entry{ino: 1<<40 + 5, typ: modeReg, cookie: 300}
	vectors.Check(t, "entry", "the row of an entry", e.encode())
	if got, err := decodeEntry(e.encode()); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}

	attrs := map[string][]byte{"user.b": []byte("value"), "user.a": {}}
	vectors.Check(t, "xattrs", "the row of two attributes", encodeXattrs(attrs))
	if got, err := decodeXattrs(encodeXattrs(attrs)); err != nil || !reflect.DeepEqual(got, attrs) {
		t.Errorf("%+v, %v", got, err)
	}
}
