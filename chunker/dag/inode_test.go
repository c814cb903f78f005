package dag

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/link"
	"skep/chunker/record"
	"skep/chunker/secret"
)

func drawTime(t *rapid.T, name string) Time {
	return Time{
		Sec:  rapid.OneOf(rapid.Just[int64](0), rapid.Int64()).Draw(t, name+".sec"),
		Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, name+".nsec"),
	}
}

func drawInode(t *rapid.T) Inode {
	n := Inode{
		ID: rapid.Uint64().Draw(t, "id"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		Nlink: rapid.Uint32().Draw(t, "nlink"), Rdev: rapid.Uint64().Draw(t, "rdev"),
		Mtime: drawTime(t, "mtime"), Ctime: drawTime(t, "ctime"), Btime: drawTime(t, "btime"),
	}
	n.Mode = rapid.SampledFrom([]uint32{ModeRegular, ModeDirectory, ModeSymlink, ModeFIFO, ModeChar, ModeBlock, ModeSocket}).Draw(t, "type")
	n.Mode |= rapid.Uint32Range(0, 0o7777).Draw(t, "permissions")
	switch n.Mode & ModeType {
	case ModeRegular:
		drawContent(t, &n)
	case ModeSymlink:
		n.Inline = rapid.SliceOfN(rapid.Byte(), 1, MaxTarget).Draw(t, "target")
		n.Size = int64(len(n.Inline))
	case ModeDirectory:
		n.Size = rapid.Int64Range(0, 1<<40).Draw(t, "size")
		if rapid.Bool().Draw(t, "filled") {
			n.Content = link.Link{Codec: link.DagPB, Key: secret.Key{5}}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
		if n.Xattrs == nil {
			n.Xattrs = map[string][]byte{}
		}
		name := rapid.SliceOfN(rapid.Byte(), 1, MaxXattrName).Draw(t, "xattr")
		n.Xattrs[string(name)] = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")
	}
	return n
}

func drawContent(t *rapid.T, n *Inode) {
	switch rapid.IntRange(0, 3).Draw(t, "content") {
	case 0:
		n.Inline = rapid.SliceOfN(rapid.Byte(), 1, MaxInline).Draw(t, "inline")
		n.Size = int64(len(n.Inline))
	case 1:
		n.Size, n.Content = rapid.Int64Range(1, ChunkSize).Draw(t, "size"), rawLink(1)
	case 2:
		n.Size, n.Content = rapid.Int64Range(ChunkSize+1, math.MaxInt64).Draw(t, "size"), link.Link{Codec: link.DagPB}
		n.Content.Hash[3] = 1
	}
}

func TestInodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawInode(t)
		b, err := n.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeInode(b)
		if err != nil || !reflect.DeepEqual(got, n) {
			t.Fatalf("%+v came back as %+v: %v", n, got, err)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("two encodings of one record")
		}
	})
}

func TestInodeDoesNotReferToInput(t *testing.T) {
	n := Inode{Mode: ModeRegular, Size: 3, Inline: []byte("abc"), Xattrs: map[string][]byte{"a": []byte("b")}}
	b, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeInode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, n) {
		t.Fatal("the record changed with the bytes it was read from")
	}
}

func TestInodeRefuses(t *testing.T) {
	dir := link.Link{Codec: link.DagPB, Key: secret.Key{1}}
	for name, n := range map[string]Inode{
		"no type":                  {Mode: 0o644},
		"negative size":            {Mode: ModeDirectory, Size: -1},
		"a second of nanoseconds":  {Mode: ModeFIFO, Mtime: Time{Nsec: 1e9}},
		"content without size":     {Mode: ModeRegular, Content: rawLink(1)},
		"size without content":     {Mode: ModeRegular, Size: 1},
		"chunk for many":           {Mode: ModeRegular, Size: ChunkSize + 1, Content: rawLink(1)},
		"tree for one chunk":       {Mode: ModeRegular, Size: ChunkSize, Content: dir},
		"inline of another size":   {Mode: ModeRegular, Size: 4, Inline: []byte("abc")},
		"inline too large":         {Mode: ModeRegular, Size: MaxInline + 1, Inline: make([]byte, MaxInline+1)},
		"inline and content":       {Mode: ModeRegular, Size: 1, Inline: []byte("a"), Content: rawLink(1)},
		"symlink without target":   {Mode: ModeSymlink},
		"symlink of another size":  {Mode: ModeSymlink, Size: 1, Inline: []byte("ab")},
		"symlink with content":     {Mode: ModeSymlink, Size: 1, Inline: []byte("a"), Content: rawLink(1)},
		"symlink too long":         {Mode: ModeSymlink, Size: MaxTarget + 1, Inline: make([]byte, MaxTarget+1)},
		"directory with a chunk":   {Mode: ModeDirectory, Content: rawLink(1)},
		"directory with bytes":     {Mode: ModeDirectory, Inline: []byte("a")},
		"pipe with content":        {Mode: ModeFIFO, Content: rawLink(1)},
		"device with bytes":        {Mode: ModeChar, Inline: []byte("a")},
		"linked without id":        {Linked: true, Mode: ModeRegular},
		"linked without a type":    {Linked: true, ID: 1},
		"linked directory":         {Linked: true, ID: 1, Mode: ModeDirectory},
		"linked with permissions":  {Linked: true, ID: 1, Mode: ModeRegular | 0o644},
		"linked with a time":       {Linked: true, ID: 1, Mode: ModeRegular, Mtime: Time{Sec: 1}},
		"linked with content":      {Linked: true, ID: 1, Mode: ModeRegular, Content: rawLink(1)},
		"xattr without a name":     {Mode: ModeFIFO, Xattrs: map[string][]byte{"": nil}},
		"xattr with a long name":   {Mode: ModeFIFO, Xattrs: map[string][]byte{strings.Repeat("x", 256): nil}},
		"xattr with a large value": {Mode: ModeFIFO, Xattrs: map[string][]byte{"x": make([]byte, MaxXattrValue+1)}},
	} {
		if _, err := n.Encode(); !errors.Is(err, ErrInode) {
			t.Errorf("%s: encodes: %v", name, err)
		}
		if _, err := DecodeInode(n.encode()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: decodes: %v", name, err)
		}
	}
	huge := Inode{Mode: ModeFIFO, Xattrs: map[string][]byte{}}
	for i := range 17 {
		huge.Xattrs[strings.Repeat("x", i+1)] = make([]byte, MaxXattrValue)
	}
	if _, err := huge.Encode(); !errors.Is(err, ErrInode) {
		t.Errorf("a record beyond the limit encodes: %v", err)
	}
	if _, err := DecodeInode(huge.encode()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a record beyond the limit decodes: %v", err)
	}
}

func TestInodeRefusesOtherForms(t *testing.T) {
	n := smallInode(1)
	good := n.encode()
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"trailing bytes": append(bytes.Clone(good), 0),
		"truncated":      good[:len(good)-1],
		"no version":     record.Encode(map[int]any{1: 7, 2: ModeFIFO}),
		"explicit zero":  record.Encode(map[int]any{0: 1, 1: 7, 2: ModeFIFO, 3: 0}),
		"unknown field":  record.Encode(map[int]any{0: 1, 1: 7, 2: ModeFIFO, 99: 1}),
		"null":           record.Encode(nil),
		"text xattr":     record.Encode(map[int]any{0: 1, 2: ModeFIFO, 13: map[string][]byte{"a": nil}}),
		"null xattr":     record.Encode(map[int]any{0: 1, 2: ModeFIFO, 13: map[[1]byte]any{}}),
		"short link":     record.Encode(map[int]any{0: 1, 2: ModeRegular, 6: 1, 11: make([]byte, 64)}),
		"zero time":      record.Encode(map[int]any{0: 1, 2: ModeFIFO, 7: []int{0, 0}}),
		"zero link":      record.Encode(map[int]any{0: 1, 2: ModeFIFO, 11: make([]byte, 65)}),
		"long integer":   {0xa2, 0x00, 0x01, 0x02, 0x1a, 0x00, 0x00, 0x10, 0x00},
	} {
		if _, err := DecodeInode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := bytes.Clone(good)
	later[2] = 2
	if _, err := DecodeInode(later); !errors.Is(err, ErrVersion) {
		t.Errorf("a later version: %v", err)
	}
}

// TestInodeIsCompact bounds the records of the usual kinds, so that what is zero
// does not creep in.
func TestInodeIsCompact(t *testing.T) {
	for name, most := range map[string]int{"file": 140, "tiny": 35, "linked": 11, "symlink": 30} {
		n := goldenInodes[name]
		if b := n.encode(); len(b) > most {
			t.Errorf("%s: %d bytes, at most %d: %x", name, len(b), most, b)
		}
	}
}

func TestTime(t *testing.T) {
	for _, want := range []time.Time{
		time.Date(1901, 12, 13, 20, 45, 51, 999_999_999, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 1, time.UTC),
		time.Unix(0, 0),
		time.Date(2038, 1, 19, 3, 14, 8, 5, time.UTC),
		time.Date(2554, 7, 21, 23, 34, 34, 0, time.UTC),
	} {
		n := Inode{Mode: ModeFIFO, Mtime: Time{Sec: want.Unix(), Nsec: uint32(want.Nanosecond())}}
		b, err := n.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeInode(b)
		if err != nil || !got.Mtime.Time().Equal(want) {
			t.Errorf("%v came back as %v: %v", want, got.Mtime.Time(), err)
		}
	}
}
