package tree

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkCut measures the instant of a cut, while which nothing can change, on
// trees of some sizes of which as many inodes as may be are in memory.
func BenchmarkCut(b *testing.B) {
	for _, files := range []int{100, 30_000} {
		b.Run(fmt.Sprintf("%d-files", files), func(b *testing.B) {
			d := newDevice(b, Options{})
			for i := range files {
				if _, err := d.Mkdir(ctx, Root, fmt.Sprint(i), 0o755, Owner{}); err != nil {
					b.Fatal(err)
				}
			}
			for i := range 10 {
				f, _, err := d.Create(ctx, Root, fmt.Sprint("open", i), 0o600, os.O_RDWR, Owner{})
				if err != nil {
					b.Fatal(err)
				}
				defer f.Release()
			}
			for b.Loop() {
				c := &Cut{t: d.Tree, taken: inoSet{}, passed: map[Ino]bool{}, joined: map[Ino]unix.Stat_t{}}
				sc, err := c.begin()
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if c.view, err = sc.View(); err != nil {
					b.Fatal(err)
				}
				c.Close()
				d.st.PrepareCut()
				b.StartTimer()
			}
		})
	}
}
