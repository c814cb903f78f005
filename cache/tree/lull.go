package tree

const (
	// lullLooks is after how many looks what was fetched is recorded although more
	// and more of it comes: ten seconds.
	lullLooks = 20
	// lullFiles is of how many files that waits for a lull at most.
	lullFiles = 64
)

// lull finds the moment to record what was fetched: when no more of it comes. To
// flush it takes the disk, the processor and ext4's journal from those who still
// read; what is lost with the power meanwhile is fetched again.
type lull struct {
	came  uint64 // as of the last look
	looks int    // since something waits
}

// over looks: files wait to be recorded, and so much came in all.
func (l *lull) over(files int, came uint64) bool {
	still := came == l.came
	l.came = came
	l.looks++
	if files == 0 || files > lullFiles || still || l.looks >= lullLooks {
		l.looks = 0
	}
	return files > 0 && l.looks == 0
}
