package wire

import (
	"io"
	"time"
)

// Patience is how long one side of an exchange waits for the other.
type Patience struct {
	// Stall is how long the other side may take for the next 64 KiB, or for the
	// little it has to say.
	Stall time.Duration
	// Total is how long the whole exchange may take.
	Total time.Duration
}

// stretch is how many bytes have to pass within Patience.Stall.
const stretch = 64 << 10

// A Stream is what an exchange needs of a stream of the host. Its deadlines end
// reads and writes that wait.
type Stream interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Patient returns a stream that reads from and writes to s, and whose reads and
// writes end with an error that is a timeout as soon as the other side tries
// p. Reading and writing may go on at the same time, each from one goroutine.
func Patient(s Stream, p Patience) io.ReadWriter {
	end := time.Now().Add(p.Total)
	return &patient{
		s: s,
		r: meter{stall: p.Stall, end: end, set: s.SetReadDeadline},
		w: meter{stall: p.Stall, end: end, set: s.SetWriteDeadline},
	}
}

type patient struct {
	s    Stream
	r, w meter
}

// meter sets a deadline for each stretch.
type meter struct {
	stall time.Duration
	end   time.Time
	set   func(time.Time) error
	left  int // bytes of the stretch to come
}

func (m *meter) begin() error {
	if m.left > 0 {
		return nil
	}
	d := time.Now().Add(m.stall)
	if d.After(m.end) {
		d = m.end
	}
	m.left = stretch
	return m.set(d)
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.r.begin(); err != nil {
		return 0, err
	}
	n, err := p.s.Read(b)
	p.r.left -= n
	return n, err
}

// Write implements io.Writer. It writes stretch by stretch.
func (p *patient) Write(b []byte) (int, error) {
	done := 0
	for {
		if err := p.w.begin(); err != nil {
			return done, err
		}
		n, err := p.s.Write(b[done:min(len(b), done+stretch)])
		done += n
		p.w.left -= n
		if err != nil || done == len(b) {
			return done, err
		}
	}
}
