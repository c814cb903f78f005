package space

import "time"

// Speed is how fast bytes went out lately. The zero Speed is unknown.
type Speed struct {
	bytes, seconds float64 // what counts of what was learned
}

// What is older than the last learnedBytes, or learnedSeconds of sending, counts
// less and less.
const (
	learnedBytes   = 64 << 20
	learnedSeconds = 10
)

// Learn takes in that n bytes went out, in a time in which something was being
// sent. That none went out yet counts, too.
func (s *Speed) Learn(n int64, busy time.Duration) {
	s.bytes += float64(n)
	s.seconds += busy.Seconds()
	if most := max(s.bytes/learnedBytes, s.seconds/learnedSeconds); most > 1 {
		s.bytes /= most
		s.seconds /= most
	}
}

// Rate is the speed in bytes a second, 0 if it is unknown.
func (s *Speed) Rate() float64 {
	if s.bytes == 0 {
		return 0
	}
	return s.bytes / max(s.seconds, 0.001)
}
