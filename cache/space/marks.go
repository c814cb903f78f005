package space

import "time"

// Use is what a drive takes of the local disk, in bytes.
type Use struct {
	Content  int64 // backing files
	Unsynced int64 // of these, the files of which no commit has taken all
	Waiting  int64 // of these, what the next commits have to take
	Pinned   int64 // of these, what is to stay, as counted last
	Tables   int64 // journal, index, packs of metadata
}

// Total is all of it.
func (u Use) Total() int64 { return u.Content + u.Tables }

// Disk is the local filesystem.
type Disk struct {
	Size, Free int64
	// Promised is what is offered to other peers and not taken yet: the cache
	// leaves it alone.
	Promised int64
}

// MinLimit is the smallest limit that a cache can work with.
const MinLimit = 64 << 20

const (
	// leastContent is how much content may be here however large the tables
	// are, so that a drive always works.
	leastContent = 16 << 20
	// mostFree is the most that is left free on the disk for the journal, the
	// tables, and everybody else.
	mostFree = 1 << 30
)

// Marks are the levels of local use that something happens at.
type Marks struct {
	// Limit is the most that content and tables may take. What the kernel
	// writes alone may go beyond it by Reserve.
	Limit, Reserve int64
	// Content is let go of above High until it is below Low.
	High, Low int64
	// Slow is how much content that waits for a commit slows writers; at Full they have to
	// wait until some of it is out.
	Slow, Full int64
}

// MarksOf works the marks out. A limit of zero is half of what the disk has for
// us: what we take of it now, and what is free, without what is promised. What others
// took of the disk may be more than a promise leaves: the least goes before it.
func MarksOf(limit int64, u Use, d Disk) Marks {
	ours := u.Total() + d.Free
	rest := max(0, ours-d.Promised)
	if limit == 0 {
		limit = rest / 2
	}
	most, least := max(0, rest-keepFree(d)), max(0, ours-keepFree(d))
	limit = max(min(limit, most), min(u.Tables+leastContent, least))
	m := Marks{Limit: limit, Reserve: max(0, min(limit/4, most-limit))}
	content := max(0, m.Limit-u.Tables)
	m.High, m.Low = m.Limit-content/16, m.Limit-content/8
	m.Slow, m.Full = content/2, content
	return m
}

// keepFree is how much of a disk is left free.
func keepFree(d Disk) int64 { return min(d.Size/20, mostFree) }

// Least is how much has to be free on a disk of some size for a drive to be of use that
// has nothing on it yet.
func Least(size int64) int64 { return keepFree(Disk{Size: size}) + MinLimit }

// Excess is how much content has to go; 0 if the use is below the mark, and the
// bytes that a writer waits for fit in.
func (m Marks) Excess(u Use, wanted int64) int64 {
	if u.Total() <= m.High && m.Fits(u, wanted) {
		return 0
	}
	return max(u.Total()-m.Low, u.Total()+wanted-m.Limit)
}

// Fits reports whether n bytes more stay within the limit.
func (m Marks) Fits(u Use, n int64) bool { return u.Total()+n <= m.Limit }

// PassThrough reports whether a file that is created now may be written by the
// kernel alone, as nobody can then say how large it becomes: there must be
// plenty of room, and no need to slow writers.
func (m Marks) PassThrough(u Use, d Disk) bool {
	room := m.Limit + m.Reserve - u.Total()
	return u.Waiting <= m.Slow && room >= passRoom && d.Free-d.Promised-keepFree(d) >= passRoom
}

// passRoom is how much room there has to be for files that the kernel writes
// alone.
const passRoom = 512 << 20

const (
	// leastRate is taken for the speed of an uplink that is slower, in bytes a
	// second, and unknownRate while nothing goes out or its speed is unknown:
	// then slowing writers gains little.
	leastRate   = 1 << 20
	unknownRate = 16 << 20
	// mostDelay is the most that one write is delayed.
	mostDelay = 2 * time.Second
)

// Delay is how long a write of n bytes has to wait so that writers come down to
// what the uplink takes: nothing up to Slow, then more and more; half way to
// Full they are as fast as the uplink. A rate of 0 is unknown.
func (m Marks) Delay(u Use, n int64, rate float64) time.Duration {
	over := u.Waiting - m.Slow
	if over <= 0 {
		return 0
	}
	if rate == 0 {
		rate = unknownRate
	}
	part := min(1, float64(over)/float64(max(1, m.Full-m.Slow)))
	d := time.Duration(2 * part * float64(n) / max(rate, leastRate) * float64(time.Second))
	return min(d, mostDelay)
}
