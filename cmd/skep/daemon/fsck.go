package daemon

import (
	"context"
	"slices"
	"sync"

	"skep/chunker/keyring"
	"skep/cmd/skep/fsck"
	"skep/cmd/skep/home"
)

// Fsck checks the home of a daemon that does not run.
func Fsck(ctx context.Context, h home.Dir, keys keyring.Local, opt fsck.Options) (fsck.Report, error) {
	d, err := Open(ctx, h, keys, nil, discard())
	if err != nil {
		return fsck.Report{}, err
	}
	defer d.close()
	_ = d.listener.Close() // nobody is to wait for answers to commands
	return fsck.Check(ctx, d.checked(), opt)
}

// checked is what a check looks at.
func (d *Daemon) checked() fsck.Home {
	h := fsck.Home{Hosted: d.net.hosted}
	if dr := d.drive; dr != nil {
		h.Drive = &fsck.Drive{
			State: dr.st, Tree: dr.tree, Table: dr.table, Packs: dr.packs, Here: dr.readerHere(), Reader: dr.reader,
			Names: dr.names(), Read: dr.epoch.Read, IsBlock: dr.isBlock,
			LetGo: dr.letGo.list,
			Join:  d.net.join, Count: dr.engine.Count, Manifest: d.net.swarm.Manifest, Holders: d.net.client,
		}
	}
	return h
}

// letGoMost is how many entries a letGo remembers.
const letGoMost = 10_000

// letGo is what the drive let go of since it was opened, as it was not what had been left
// on this disk; the first entries, if there are many.
type letGo struct {
	mu  sync.Mutex // guards all
	all []fsck.Problem
}

func (l *letGo) note(path, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < letGoMost {
		l.all = append(l.all, fsck.Problem{What: path, Problem: what})
	}
}

func (l *letGo) list() []fsck.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}
