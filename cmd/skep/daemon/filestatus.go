package daemon

import (
	"context"
	"fmt"
	"time"

	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/cmd/skep/control"
	"skep/repair/health"
)

// filePatience bounds the time that is taken to look a large file's packs up:
// the nodes of its tree may have to be fetched.
const filePatience = 10 * time.Second

// pathStatus tells how safe one file is.
func (d *Daemon) pathStatus(ctx context.Context, path string) control.PathStatus {
	out := control.PathStatus{Path: path}
	if err := d.lookAt(ctx, path, &out); err != nil {
		out.Error = err.Error()
	}
	return out
}

func (d *Daemon) lookAt(ctx context.Context, path string, out *control.PathStatus) error {
	if d.drive == nil {
		return errNoDrive
	}
	rel, err := d.relative(path)
	if err != nil {
		return err
	}
	a, err := d.drive.tree.Find(ctx, rel)
	if err != nil {
		return err
	}
	out.Size = a.Size
	pending, err := d.drive.tree.IsPending(a.Ino)
	if err != nil {
		return err
	}
	packs := packsOf{d: d, all: map[packName]bool{}}
	if a.Mode&0o170000 == 0o100000 {
		c, err := d.drive.tree.ContentState(ctx, a.Ino)
		if err != nil {
			return err
		}
		out.Resident = c.Resident
		pending = pending || c.Dirty
		if err := packs.file(ctx, dag.File{Root: c.Content, Size: a.Size}); err != nil && !pending {
			return fmt.Errorf("the packs of its content: %w", err)
		}
	}
	packs.judge(out)
	switch {
	case pending:
		out.State = "local"
	case out.PacksBelowTarget > 0, out.PacksLost > 0:
		out.State = "out"
	default:
		out.State = "safe"
	}
	return nil
}

// packsOf gathers the packs that a file's content lies in.
type packsOf struct {
	d   *Daemon
	all map[packName]bool
}

type packName struct {
	group  group.ID
	number uint16
}

// file takes in the packs of a file's chunks. A file without blocks of its own
// has none.
func (p *packsOf) file(ctx context.Context, f dag.File) error {
	if f.Root.IsZero() || f.Size == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, filePatience)
	defer cancel()
	if err := p.block(ctx, f.Root); err != nil {
		return err
	}
	return dag.Chunks(ctx, p.d.drive.reader, f, 0, f.Chunks(), func(_ int64, l link.Link) error { return p.block(ctx, l) })
}

// block takes in the pack that a block is read from.
func (p *packsOf) block(ctx context.Context, l link.Link) error {
	places, err := p.d.drive.reader.Places(ctx, l)
	if err == nil {
		p.all[packName{places[0].Group, places[0].Number}] = true
	}
	return err
}

// judge says how the packs are.
func (p *packsOf) judge(out *control.PathStatus) {
	groups := map[group.ID]bool{}
	for name := range p.all {
		h, ok := p.d.repair.PackHealth(name.group, name.number)
		if !ok {
			continue
		}
		g, found, err := p.d.drive.table.Group(name.group)
		if err != nil || !found {
			continue
		}
		out.Packs++
		out.ShardsMissing += int(g.Coding.N) - h.Live
		count(out, h)
		if h.Health != health.Healthy || h.AtRisk {
			groups[name.group] = true
		}
		if out.Packs == 1 || h.Proven.Before(out.Proven) {
			out.Proven = h.Proven
		}
	}
	for id := range groups {
		out.Groups = append(out.Groups, id.String()[:12])
	}
}

func count(out *control.PathStatus, h health.PackHealth) {
	switch h.Health {
	case health.Lost:
		out.PacksLost++
		out.PacksBelowTarget++
	case health.Injured:
		out.PacksBelowTarget++
	}
	if h.AtRisk {
		out.PacksAtRisk++
	}
	if h.Unasked > 0 {
		out.PacksUnasked++
	}
}
