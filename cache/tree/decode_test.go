package tree

import (
	"bytes"
	"maps"
	"testing"
)

// FuzzRows reads any bytes as each kind of small row: what can be read is
// written as it was, or reads the same again.
func FuzzRows(f *testing.F) {
	e := entry{ino: 1<<40 | 16, typ: modeReg, cookie: 3}
	f.Add(e.encode())
	f.Add(append(e.encode(), "name"...))
	f.Add(encodeXattrs(map[string][]byte{"user.a": []byte("x"), "user.b": nil}))
	f.Add(append(append(uint64Value(5), uint64Value(7)...), "written"...))
	f.Add(markKey(Root, "name"))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEntry(b); err == nil {
			if again, err := decodeEntry(e.encode()); err != nil || again != e {
				t.Errorf("entry %+v reads as %+v, %v", e, again, err)
			}
		}
		if e, name, err := decodeCookie(b); err == nil {
			if again, n, err := decodeCookie(append(e.encode(), name...)); err != nil || again != e || n != name {
				t.Errorf("cookie %+v %q reads as %+v %q, %v", e, name, again, n, err)
			}
		}
		if m, err := decodeXattrs(b); err == nil {
			if again, err := decodeXattrs(encodeXattrs(m)); err != nil || !maps.EqualFunc(m, again, bytes.Equal) {
				t.Errorf("attributes %q read as %q, %v", m, again, err)
			}
		}
		if p, from, off, err := decodeAdded(b); err == nil && (from > off || off > MaxSize || len(p) != len(b)-16) {
			t.Errorf("a write of %d bytes at %d from %d", len(p), off, from)
		}
		if m, err := parseMark(b); err == nil && !bytes.Equal(markKey(m.Dir, m.Name)[1:], b[1:]) {
			t.Errorf("mark %+v is not %x", m, b)
		}
	})
}
