package tree

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"skep/cache/backing"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// cutModel is a file that is written in place, and what commits took of it.
type cutModel struct {
	t         *rapid.T
	d         *device
	f         *File
	ino       Ino
	now       []byte
	committed []byte // by the newest commit that was settled
	commits   byte
}

const cutModelSize = 4 << 20

func (m *cutModel) ok(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

// offset draws a place that is likely to be near an edge of a chunk or page.
func (m *cutModel) offset(most int64, label string) int64 {
	at := rapid.Int64Range(0, most).Draw(m.t, label)
	if rapid.Bool().Draw(m.t, "aligned") {
		at = at / 65536 * 65536
	}
	return at
}

func (m *cutModel) resize(n int64) {
	if int64(len(m.now)) < n {
		m.now = append(m.now, make([]byte, n-int64(len(m.now)))...)
	}
	m.now = m.now[:n:n]
}

func (m *cutModel) write() {
	off := m.offset(cutModelSize, "off")
	p := bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(m.t, "byte"))}, rapid.IntRange(1, 200_000).Draw(m.t, "len"))
	_, err := m.f.WriteAt(ctx, p, off, false)
	m.ok(err)
	m.now = append([]byte(nil), m.now...)
	m.resize(max(int64(len(m.now)), off+int64(len(p))))
	copy(m.now[off:], p)
}

func (m *cutModel) punch() {
	off := m.offset(cutModelSize, "off")
	n := rapid.Int64Range(1, 2<<20).Draw(m.t, "len")
	m.ok(m.f.Allocate(ctx, off, n, 0x3))
	m.now = append([]byte(nil), m.now...)
	if off < int64(len(m.now)) {
		clear(m.now[off:min(off+n, int64(len(m.now)))])
	}
}

func (m *cutModel) truncate() {
	n := m.offset(cutModelSize, "size")
	_, err := m.d.SetAttr(ctx, m.ino, SetAttr{Size: &n, File: m.f})
	m.ok(err)
	m.now = append([]byte(nil), m.now...)
	m.resize(n)
}

func (m *cutModel) reopen() {
	m.f.Release()
	var err error
	m.f, err = m.d.Open(ctx, m.ino, os.O_RDWR)
	m.ok(err)
}

// step changes the file.
func (m *cutModel) step() {
	switch rapid.IntRange(0, 6).Draw(m.t, "op") {
	case 0:
		m.punch()
	case 1:
		m.truncate()
	case 2:
		m.reopen()
	default:
		m.write()
	}
}

// commit takes the file as of a moment while it goes on changing.
func (m *cutModel) commit() {
	c, err := m.d.Cut()
	m.ok(err)
	defer c.Close()
	want := m.now
	for range rapid.IntRange(0, 3).Draw(m.t, "before it is opened") {
		m.step()
	}
	in, ok, err := c.Inode(m.ino)
	m.ok(err)
	if !ok {
		m.t.Fatal("the file is not in the cut")
	}
	if !in.Dirty {
		if !bytes.Equal(want, m.committed) {
			m.t.Fatal("the file changed and is not dirty")
		}
		return
	}
	f, err := c.OpenFile(ctx, in, Whole)
	m.ok(err)
	defer f.Close()
	if f.Size != int64(len(want)) {
		m.t.Fatalf("%d bytes as of the cut, there were %d", f.Size, len(want))
	}
	m.checkChanged(f, want)
	m.checkContent(f, want)
	if rapid.IntRange(0, 3).Draw(m.t, "fails") == 0 {
		return
	}
	m.ok(f.Taken())
	m.commits++
	l := link.Link{Codec: link.DagPB, Hash: link.Hash{m.commits}, Key: [32]byte{1}}
	m.ok(c.Settle(ctx, []Settled{{Ino: m.ino, Content: l, Size: f.Size}}))
	m.ok(c.ClearMarks(nil))
	m.committed = want
}

// checkChanged holds what counts as changed against what did.
func (m *cutModel) checkChanged(f *CutFile, want []byte) {
	var changed backing.Ranges
	for _, r := range f.Changed() {
		changed.Add(r.From, r.To)
	}
	for at := 0; at < len(want); at += dag.ChunkSize {
		end := min(at+dag.ChunkSize, len(want))
		var old []byte
		if at < len(m.committed) {
			old = m.committed[at:min(at+dag.ChunkSize, len(m.committed))]
		}
		if !bytes.Equal(old, want[at:end]) && !changed.Contains(int64(at), int64(end)) {
			m.t.Fatalf("the chunk at %d changed, and only %v count as changed", at, changed.List())
		}
	}
}

// checkContent reads all of the file, holes apart, while it changes.
func (m *cutModel) checkContent(f *CutFile, want []byte) {
	got := make([]byte, f.Size)
	for at := int64(0); at < f.Size; {
		from, to := f.NextData(at)
		if from < at || to < from || to == from && from < f.Size {
			m.t.Fatalf("from %d on, data is said to be in %d to %d", at, from, to)
		}
		if rapid.IntRange(0, 3).Draw(m.t, "meanwhile") == 0 {
			m.step()
		}
		to = min(to, from+300_000)
		m.ok(f.ReadAt(ctx, got[from:to], from))
		at = to
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				m.t.Fatalf("at %d the content is not as of the cut: %d instead of %d", i, got[i], want[i])
			}
		}
	}
}

// TestCutFile takes a file by commits, some of which fail, while it is written,
// punched, cut short and grown.
func TestCutFile(t *testing.T) {
	d := newDevice(t, Options{})
	names := 0
	rapid.Check(t, func(rt *rapid.T) {
		names++
		f, a, err := d.Create(ctx, Root, fmt.Sprint(names), 0o600, os.O_RDWR, Owner{})
		if err != nil {
			rt.Fatal(err)
		}
		m := &cutModel{t: rt, d: d, f: f, ino: a.Ino}
		defer func() { m.f.Release() }()
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(*rapid.T) { m.step() },
			"commit": func(*rapid.T) { m.commit() },
		})
	})
}
