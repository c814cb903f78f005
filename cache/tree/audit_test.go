package tree

import (
	"errors"
	"strings"
	"testing"

	"skep/cache/state"
)

// faults are what Audit finds.
func (d *device) faults() (all []string) {
	d.t.Helper()
	if err := d.Audit(ctx, func(path, what string) { all = append(all, path+": "+what) }, nil); err != nil {
		d.t.Fatal(err)
	}
	return all
}

// Rows that fit are no faults; one that is missing or says otherwise than the
// others is found, by the path that it concerns.
func TestAudit(t *testing.T) {
	build := func() (d *device, file, dir Ino) {
		d = newDevice(t, Options{})
		a, err := d.Mkdir(ctx, Root, "dir", 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		file = d.write(a.Ino, "large", pattern(100_000, 1))
		linked := d.write(a.Ino, "small", []byte("x"))
		if _, err := d.Link(ctx, linked, Root, "linked"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Symlink(ctx, a.Ino, "symlink", "small", Owner{}); err != nil {
			t.Fatal(err)
		}
		if err := d.Unlink(ctx, a.Ino, "symlink"); err != nil {
			t.Fatal(err)
		}
		d.restart()
		if all := d.faults(); len(all) > 0 {
			t.Fatalf("all is well, and found is %q", all)
		}
		return d, file, a.Ino
	}
	var d *device
	linked := func(dir Ino) (e entry, r row) {
		v, _, _ := d.st.Get(entryKey(dir, "small"))
		e, _ = decodeEntry(v)
		r, _ = d.rowNow(e.ino)
		return e, r
	}
	for name, tt := range map[string]struct {
		harm func(b *state.Batch, file, dir Ino, e entry, r row)
		want string
	}{
		"no cookie": {func(b *state.Batch, _, dir Ino, e entry, _ row) { b.Delete(cookieKey(dir, e.cookie)) },
			"/dir/large: is there, and no listing shows it"},
		"no entry": {func(b *state.Batch, _, dir Ino, _ entry, _ row) { b.Delete(entryKey(dir, "large")) },
			"/dir/large: is listed, and cannot be looked up"},
		"another cookie": {func(b *state.Batch, _, dir Ino, e entry, _ row) {
			e.cookie += 7
			b.Put(entryKey(dir, "large"), e.encode())
		}, "/dir/large: is listed, and cannot be looked up"},
		"no inode": {func(b *state.Batch, file, _ Ino, _ entry, _ row) { b.Delete(key(tableInode, file)) },
			"/dir/large: leads to inode"},
		"another type": {func(b *state.Batch, file, _ Ino, _ entry, r row) {
			r.mode = modeLnk | 0o777
			b.Put(key(tableInode, file), r.encode())
		}, "/dir/large: is of type 10 in its directory, and of 12 itself"},
		"another name": {func(b *state.Batch, file, _ Ino, _ entry, r row) {
			r.name = "other"
			b.Put(key(tableInode, file), r.encode())
		}, "/dir/other: inode"},
		"malformed": {func(b *state.Batch, file, _ Ino, _ entry, _ row) { b.Put(key(tableInode, file), []byte{9}) },
			"malformed inode row"},
		"no owner": {func(b *state.Batch, _, _ Ino, _ entry, r row) { b.Delete(backingKey(r.backing)) },
			"/dir/large: its backing file"},
		"another owner": {func(b *state.Batch, _, dir Ino, _ entry, r row) {
			b.Put(backingKey(r.backing), uint64Value(uint64(dir)))
		},
			"/dir: backing file"},
		"more links than names": {func(b *state.Batch, _, dir Ino, _ entry, _ row) {
			e, r := linked(dir)
			r.nlink++
			b.Put(key(tableInode, e.ino), r.encode())
		}, "counts 3 links, and there are 2"},
		"two links of one name": {func(b *state.Batch, file, _ Ino, _ entry, r row) {
			r.nlink = 2
			b.Put(key(tableInode, file), r.encode())
		}, "/dir/large: counts 2 links, and there are 1"},
		"a directory with another count": {func(b *state.Batch, _, dir Ino, _ entry, _ row) {
			r, _ := d.rowNow(dir)
			r.nlink = 3
			b.Put(key(tableInode, dir), r.encode())
		}, "/dir: counts 3 links, and there are 2"},
		"a name too many": {func(b *state.Batch, file, dir Ino, e entry, _ row) {
			e.cookie += 7
			b.Put(entryKey(dir, "other"), e.encode())
			b.Put(cookieKey(dir, e.cookie), append(e.encode(), "other"...))
		}, "/dir/other: leads to inode"},
		"cut off": {func(*state.Batch, Ino, Ino, entry, row) {
			file, _ := d.Find(ctx, "dir/large")
			f, err := d.files.Open(d.numberOf(file.Ino))
			must(t, err)
			must(t, errors.Join(f.Truncate(90_000), f.Close()))
		}, "/dir/large: has 90000 bytes here, where 100000 were left"},
		"content left over": {func(b *state.Batch, _, _ Ino, _ entry, _ row) { b.Put(key(tableInline, 999_999), []byte{0}) },
			"inode 999999: is not there, and has content"},
		"left over": {func(b *state.Batch, _, _ Ino, _ entry, _ row) { b.Put(key(tableXattrs, 999_999), []byte{0}) },
			"inode 999999: is not there, and has attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			var file, dir Ino
			d, file, dir = build()
			v, _, _ := d.st.Get(entryKey(dir, "large"))
			e, err := decodeEntry(v)
			if err != nil {
				t.Fatal(err)
			}
			r, err := d.rowNow(file)
			if err != nil {
				t.Fatal(err)
			}
			var b state.Batch
			tt.harm(&b, file, dir, e, r)
			if _, err := d.st.Apply(&b); err != nil {
				t.Fatal(err)
			}
			if all := d.faults(); !strings.Contains(strings.Join(all, "\n"), tt.want) {
				t.Errorf("found %q, want %q", all, tt.want)
			}
		})
	}
}
