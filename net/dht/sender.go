package dht

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio/pbio"
	"golang.org/x/sync/semaphore"
)

const (
	// askedAtOnce is how many questions one peer is asked at a time: fewer than it takes of
	// one, so that many may ask it.
	askedAtOnce = 2
	// askPatience is how long the answer to one is waited for.
	askPatience = 10 * time.Second
	// mostCloser is how many nearer peers an answer may name, as for the table's library.
	mostCloser = 40
	// tellPatience is how long who is told something may take to hear it.
	tellPatience = 2 * time.Second
)

// errNoRecord says that a peer answered a put without the record that it took.
var errNoRecord = errors.New("an answer of the DHT lacks its record")

// sender asks the questions of the table. Each has a stream of its own, so that an answer
// that was not asked for is never taken for that to the next question. It lets no answer
// through at which the table's library, which trusts those to a put, would fail, and
// takes note of who tells which addresses. It is safe for concurrent use.
type sender struct {
	host   guard
	protos []protocol.ID

	mu    sync.Mutex // guards lines, and who uses each
	lines map[peer.ID]*line
}

// line is the way to one peer.
type line struct {
	free  *semaphore.Weighted
	users int
}

func (g guard) sender(_ host.Host, protos []protocol.ID) pb.MessageSenderWithDisconnect {
	return &sender{host: g, protos: protos, lines: map[peer.ID]*line{}}
}

// OnDisconnect implements pb.MessageSenderWithDisconnect.
func (s *sender) OnDisconnect(context.Context, peer.ID) {}

// SendMessage sends what is not answered.
func (s *sender) SendMessage(ctx context.Context, p peer.ID, m *pb.Message) error {
	return s.exchange(ctx, p, m, nil, tellPatience)
}

// SendRequest returns the answer to a question.
func (s *sender) SendRequest(ctx context.Context, p peer.ID, m *pb.Message) (*pb.Message, error) {
	begin, answer := time.Now(), new(pb.Message)
	if err := s.exchange(ctx, p, m, answer, askPatience); err != nil {
		return nil, err
	}
	s.host.Peerstore().RecordLatency(p, time.Since(begin))
	if m.GetType() == pb.Message_PUT_VALUE && answer.GetRecord() == nil {
		return nil, errNoRecord
	}
	closer, providers := answer.GetCloserPeers(), answer.GetProviderPeers()
	s.hear(p, closer[:min(len(closer), mostCloser)])
	s.hear(p, providers[:min(len(providers), mostBelow)])
	return answer, nil
}

// hear takes note of the addresses that a peer tells of others.
func (s *sender) hear(from peer.ID, named []*pb.Message_Peer) {
	for _, info := range pb.PBPeersToPeerInfos(named) {
		if info.ID != s.host.ID() {
			s.host.book.hear(from, *info)
		}
	}
}

// exchange sends a message and, if answer is not nil, reads the one that comes back.
func (s *sender) exchange(ctx context.Context, p peer.ID, m, answer *pb.Message, patience time.Duration) error {
	hangUp, err := s.enter(ctx, p)
	if err != nil {
		return err
	}
	defer hangUp()
	st, err := s.host.NewStream(ctx, p, s.protos...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = st.Reset() })()
	if err := talk(st, m, answer); err != nil {
		_ = st.Reset()
		return errors.Join(ctx.Err(), err)
	}
	return st.Close()
}

// talk is one exchange. Where there is no answer, it waits until the peer has heard the
// message, as that takes up a place with it until then.
func talk(st network.Stream, m, answer *pb.Message) error {
	if err := pbio.NewDelimitedWriter(st).WriteMsg(m); err != nil {
		return err
	}
	if err := st.CloseWrite(); err != nil {
		return err
	}
	if answer == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(st, maxAnswer))
		return err
	}
	return pbio.NewDelimitedReader(st, maxAnswer).ReadMsg(answer)
}

// enter waits until a peer may be asked.
func (s *sender) enter(ctx context.Context, p peer.ID) (leave func(), err error) {
	s.mu.Lock()
	l := s.lines[p]
	if l == nil {
		l = &line{free: semaphore.NewWeighted(askedAtOnce)}
		s.lines[p] = l
	}
	l.users++
	s.mu.Unlock()
	left := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.lines, p)
		}
	}
	if err := l.free.Acquire(ctx, 1); err != nil {
		left()
		return nil, err
	}
	return func() { l.free.Release(1); left() }, nil
}
