package tree

import "sync/atomic"

const (
	// burstGap is how soon files follow each other in a burst.
	burstGap = 250_000_000 // nanoseconds
	// burstBegins is how many small ones make one.
	burstBegins = 8
	// burstEnds is the size of a file that ends it by itself.
	burstEnds = 256 << 10
)

// burst tells when many small files are being written: unpacking an archive, a
// checkout, a build. The kernel can only write a file alone if it has a backing
// file from the beginning, and for a small one making it and letting it go costs
// more than all else; so within a burst new files are taken to be small, too,
// and go through the daemon. Some that are not hardly cost more that way, and are
// found in every tree of sources; a large one ends the burst.
type burst struct {
	last  atomic.Int64 // when the last file was written
	files atomic.Int64 // small ones since it could begin
}

func nanoseconds(t Time) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// wrote takes note that a new file was written and closed.
func (b *burst) wrote(size int64, now Time) {
	at := nanoseconds(now)
	if size >= burstEnds || at-b.last.Load() > burstGap {
		b.files.Store(0)
	}
	if size <= InlineMax {
		b.files.Add(1)
	}
	b.last.Store(at)
}

// on reports whether the next new file is likely to be small.
func (b *burst) on(now Time) bool {
	return b.files.Load() >= burstBegins && nanoseconds(now)-b.last.Load() <= burstGap
}
