package daemon

import (
	"context"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/repair/health"
)

type repairer struct{}

func newRepairer(d *Daemon) *repairer                     { return &repairer{} }
func (r *repairer) Run(ctx context.Context) error         { <-ctx.Done(); return nil }
func (r *repairer) Pause(bool)                            {}
func (r *repairer) Refresh()                              {}
func (r *repairer) Report() health.Report                 { return health.Report{} }
func (r *repairer) PeerState(k group.PeerKey) peers.State { return peers.Alive }
