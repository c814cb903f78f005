package holder_test

import (
	"context"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/net/wire"
	"skep/test/storetest"
)

// slow is a directory that is told what is held, and takes its time.
type slow struct {
	holder.Directory
	told, goOn chan struct{}
}

func (s slow) Provide(...group.ID) {
	close(s.told)
	<-s.goOn
}

// A holder says that it answers when it does, which it cannot before it has looked at what it
// holds.
func TestAnswers(t *testing.T) {
	key := secret.New().Signer()
	h, err := skephost.New(skephost.Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	dir := slow{told: make(chan struct{}), goOn: make(chan struct{})}
	hold, err := holder.New(h, storetest.NewMemory(1<<20), holder.Config{Key: key, Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- hold.Run(ctx) }()
	<-dir.told
	select {
	case <-hold.Answers():
		t.Error("it says that it answers before it does")
	default:
	}
	if serves(h) {
		t.Fatal("it answers, so that this shows nothing")
	}
	close(dir.goOn)
	<-hold.Answers()
	if !serves(h) {
		t.Error("it says that it answers, and does not")
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func serves(h host.Host) bool {
	return slices.Contains(h.Mux().Protocols(), protocol.ID(wire.Protocol))
}
