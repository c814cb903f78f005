package liar

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"skep/cache/hosted"
	"skep/chunker/secret"
	"skep/net/dht"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/net/wire"
)

// Env makes a test binary a liar: how it lies, its directory and the address
// of a peer, separated by spaces.
const Env = "SKEP_TEST_LIAR"

// Signal makes a liar begin to lie.
const Signal = syscall.SIGUSR1

// Command prepares a liar, as a process of the running test binary. It prints
// its address when it is ready, as skep peer does.
func Command(how, dir, bootstrap string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", Env, how, dir, bootstrap))
	return cmd
}

// Main is to be called by TestMain before anything else. It does not return
// when this process is to be a liar.
func Main() {
	args := strings.Fields(os.Getenv(Env))
	if len(args) != 3 {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, args[0], args[1], args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "liar:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// offer is how much a liar offers.
const offer = 1 << 30

func run(ctx context.Context, how, dir, bootstrap string) error {
	lie, ok := lies[how]
	if !ok {
		return errors.New("no such lie: " + how)
	}
	key := secret.New().Signer()
	h, err := skephost.New(skephost.Config{Key: key, Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		return err
	}
	defer h.Close()
	d, err := dht.New(h, dht.Config{})
	if err != nil {
		return err
	}
	defer d.Close()
	store, err := hosted.Open(filepath.Join(dir, "hosted"), offer)
	if err != nil {
		return err
	}
	defer store.Close()
	teller := &teller{Host: h, lie: lie, self: &self{key: key, store: store}}
	hold, err := holder.New(teller, store, holder.Config{Key: key, Directory: d, Version: "liar"})
	if err != nil {
		return err
	}
	teller.beginWhenTold(ctx)
	infos, err := skephost.ParseAddrs([]string{bootstrap})
	if err != nil {
		return err
	}
	if err := d.Bootstrap(ctx, infos); err != nil {
		return err
	}
	fmt.Println(skephost.Addrs(h)[0])
	return hold.Run(ctx)
}

// teller is a host whose streams of the shard protocol lie.
type teller struct {
	host.Host
	lie  lie
	self *self
	now  atomic.Bool // it lies
}

func (t *teller) beginWhenTold(ctx context.Context) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, Signal)
	go func() {
		select {
		case <-told:
			t.now.Store(true)
		case <-ctx.Done():
		}
	}()
}

// SetStreamHandler implements host.Host.
func (t *teller) SetStreamHandler(p protocol.ID, handle network.StreamHandler) {
	if p == wire.Protocol {
		honest := handle
		handle = func(s network.Stream) {
			if t.now.Load() {
				s = &lying{Stream: s, teller: t}
			}
			honest(s)
		}
	}
	t.Host.SetStreamHandler(p, handle)
}

// lying is a stream whose answer is kept until it is complete, and then told
// otherwise.
type lying struct {
	network.Stream
	teller *teller
	heard  []byte // the beginning of the request
	answer []byte
}

// maxHeard is enough of a request to know what it asks for.
const maxHeard = 64 << 10

// Read implements io.Reader.
func (l *lying) Read(p []byte) (int, error) {
	n, err := l.Stream.Read(p)
	l.heard = append(l.heard, p[:min(n, maxHeard-len(l.heard))]...)
	return n, err
}

// Write implements io.Writer.
func (l *lying) Write(p []byte) (int, error) {
	l.answer = append(l.answer, p...)
	return len(p), nil
}

// Close sends the answer.
func (l *lying) Close() error {
	told := l.teller.lie(l.teller.self, l.heard, l.answer)
	_ = l.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := l.Stream.Write(told.bytes); err != nil {
		return l.Reset()
	}
	if told.thenSilence {
		time.AfterFunc(10*time.Minute, func() { _ = l.Reset() })
		return nil
	}
	return l.Stream.Close()
}
