package tree

import (
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// No end of the process makes the drive, or what is here of it, seem larger or smaller
// than it is.
func TestUsageAfterCrash(t *testing.T) {
	d := newDevice(t, Options{})
	var open []*File
	defer func() {
		for _, f := range open {
			f.Release()
		}
	}()
	serial := 0
	rapid.Check(t, func(rt *rapid.T) {
		ok := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		var names []string
		some := func() string { return rapid.SampledFrom(names).Draw(rt, "name") }
		size := func() int { return rapid.SampledFrom([]int{0, 5, 3000, 20_000, 300_000}).Draw(rt, "size") }
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			op := rapid.IntRange(0, 6).Draw(rt, "op")
			if len(names) == 0 {
				op = 0
			}
			switch op {
			case 0, 1:
				serial++
				name := fmt.Sprint("f", serial)
				d.write(Root, name, pattern(size(), 1))
				names = append(names, name)
			case 2: // written and left open
				a, err := d.Lookup(ctx, Root, some())
				ok(err)
				f, err := d.Open(ctx, a.Ino, os.O_RDWR)
				ok(err)
				open = append(open, f)
				_, err = f.WriteAt(ctx, pattern(size()+1, 2), a.Size, false)
				ok(err)
			case 3:
				name := some()
				ok(d.Unlink(ctx, Root, name))
				for i := range names {
					if names[i] == name {
						names = append(names[:i], names[i+1:]...)
						break
					}
				}
			case 4:
				serial++
				from, to := some(), fmt.Sprint("f", serial)
				if a, err := d.Lookup(ctx, Root, from); err == nil {
					_, err = d.Link(ctx, a.Ino, Root, to)
					ok(err)
					names = append(names, to)
				}
			case 5:
				a, err := d.Lookup(ctx, Root, some())
				ok(err)
				n := int64(size())
				_, err = d.SetAttr(ctx, a.Ino, SetAttr{Size: &n})
				ok(err)
			case 6:
				c, err := d.Cut()
				ok(err)
				c.Close()
			}
		}
		before, _ := d.Usage()
		open = nil
		d.restart()
		var files int64
		var want tally
		ok(d.st.Scan([]byte{tableInode}, []byte{tableInode + 1}, func(_, v []byte) bool {
			r, err := decodeRow(v)
			ok(err)
			files, want = files+1, want.plus(r.tally())
			return true
		}))
		files-- // the root directory
		if f, b := d.Usage(); f != files || b != want.bytes || f != before {
			rt.Fatalf("%d files of %d bytes are there, %d before the crash; %d of %d are counted", files, want.bytes, before, f, b)
		}
		if h := d.Here(); h != want.here {
			rt.Fatalf("%d bytes are here, %d are counted", want.here, h)
		}
		if _, n, _, err := countIn(d.st); err != nil || n.holes != want.holes {
			rt.Fatalf("%d bytes are holes, %d are counted; %v", want.holes, n.holes, err)
		}
	})
}
