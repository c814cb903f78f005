package wire

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a stream whose other side takes so many bytes a second.
type paced struct {
	Stream
	rate int
	end  time.Time
}

func (p *paced) SetReadDeadline(time.Time) error { return nil }

func (p *paced) SetWriteDeadline(t time.Time) error {
	p.end = t
	return nil
}

// Write implements io.Writer. It knows its deadline from the beginning on, as a stream does.
func (p *paced) Write(b []byte) (int, error) {
	took := time.Duration(len(b)) * time.Second / time.Duration(p.rate)
	if left := time.Until(p.end); took > left {
		time.Sleep(left)
		return int(left.Seconds() * float64(p.rate)), os.ErrDeadlineExceeded
	}
	time.Sleep(took)
	return len(b), nil
}

// Who takes 64 KiB in the time for them is waited for, however much is written at once; who
// takes less is not.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for rate, want := range map[int]error{4 << 10: nil, 2 << 10: os.ErrDeadlineExceeded} {
			s := Patient(&paced{rate: rate}, Patience{Stall: 20 * time.Second, Total: time.Hour})
			begin := time.Now()
			n, err := s.Write(make([]byte, 1<<20))
			if !errors.Is(err, want) || want == nil && n != 1<<20 || want != nil && time.Since(begin) > 20*time.Second {
				t.Errorf("%d bytes a second: %d after %v, %v", rate, n, time.Since(begin), err)
			}
		}
	})
}
