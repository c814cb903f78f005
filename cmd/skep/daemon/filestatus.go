package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"skep/cache/blocks"
	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/cmd/skep/control"
	"skep/repair/health"
	"skep/repair/plan"
)

// filePatience bounds the time that is taken to look the packs up of a large file, or
// of all that is in a folder: nodes of their trees may have to be fetched.
const filePatience = 10 * time.Second

// pathStatus tells how safe one file is, or a folder with all that is in it.
func (d *Daemon) pathStatus(ctx context.Context, path string) control.PathStatus {
	out := control.PathStatus{Path: path}
	if !utf8.ValidString(path) {
		out.Bytes = []byte(path)
	}
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
	out.Size, out.Folder = a.Size, a.Mode&dag.ModeType == dag.ModeDirectory
	pending, err := d.isPending(ctx, a, out)
	if err != nil {
		return err
	}
	packs := packsOf{d: d, well: d.allWell(), all: map[packName]bool{}}
	out.State = "local"
	if !pending {
		ctx, cancel := context.WithTimeout(ctx, filePatience)
		defer cancel()
		committed, err := packs.path(ctx, rel)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("not all that is in it could be looked at in %v; ask for parts of it", filePatience)
		case err != nil:
			return fmt.Errorf("where it lies: %w", err)
		case committed:
			out.State = "safe"
		}
	}
	packs.judge(out)
	out.All = packs.every
	switch {
	case out.State == "safe" && out.PacksLost+out.PacksAway > 0:
		out.State = "lost"
	case out.State == "safe" && (out.PacksBelowTarget+out.PacksUnasked+out.PacksWeak+out.PacksFrail > 0 || !d.drive.wordsBringIt()):
		out.State = "out"
	}
	return nil
}

// wordsBringIt reports whether the words would bring back what is out, as far as is
// known; comesBack looks, and says why not.
func (d *drive) wordsBringIt() bool {
	return d.setBack.Load() == nil && d.recoveryOut.Load() && d.overtaken() == nil
}

// isPending reports whether the newest commit lacks a file, or something that is in a
// folder, as it is now.
func (d *Daemon) isPending(ctx context.Context, a tree.Attr, out *control.PathStatus) (bool, error) {
	t := d.drive.tree
	pending, err := t.IsPending(a.Ino)
	if err == nil && out.Folder && !pending {
		return t.IsPendingBelow(a.Ino)
	}
	if err != nil || a.Mode&dag.ModeType != dag.ModeRegular {
		return pending, err
	}
	c, err := t.ContentState(ctx, a.Ino)
	out.Resident = c.Resident
	return pending || c.Dirty, err
}

// packsOf gathers the packs that something lies in, and all that one has to read to
// come to it from the newest commit. It is a dag.Getter that notes where blocks are.
// It may be used concurrently.
type packsOf struct {
	d    *Daemon
	well bool // nothing is the matter with any pack of the drive

	mu    sync.Mutex // guards all below
	all   map[packName]bool
	every bool // they are all packs of the drive
}

type packName struct {
	group  group.ID
	number uint16
}

// path takes in the packs of what is at a path below the drive's root, if the newest
// commit has it there.
func (p *packsOf) path(ctx context.Context, rel string) (committed bool, err error) {
	newest, _ := p.d.drive.reader.Commit()
	if newest == nil {
		return false, nil
	}
	refs, err := newest.Refs()
	if err != nil {
		return false, err
	}
	for _, l := range refs {
		if err := p.block(ctx, l); err != nil {
			return false, err
		}
	}
	rec, err := newest.RootRecord()
	if err != nil {
		return false, err
	}
	for name := range strings.SplitSeq(rel, "/") {
		if name == "" {
			continue
		}
		var ok bool
		if rec, ok, err = dag.LookupDir(ctx, p, p.d.drive.names(), rec.Content, name); err != nil || !ok {
			return false, err
		}
	}
	return true, p.below(ctx, rec, newest.Links)
}

// below takes in the packs of the content of a file, or of a folder and of all that is
// in it.
func (p *packsOf) below(ctx context.Context, rec dag.Inode, links link.Link) error {
	if rec.Linked {
		linked, ok, err := dag.LookupDir(ctx, p, p.d.drive.names(), links, dag.InodeName(rec.ID))
		if err != nil || !ok {
			return err
		}
		rec = linked
	}
	if rec.Content.IsZero() {
		return nil // it lies with its name
	}
	if rec.Mode&dag.ModeType != dag.ModeDirectory {
		return p.file(ctx, rec.File())
	}
	if p.well {
		return p.drive()
	}
	if err := p.block(ctx, rec.Content); err != nil {
		return err
	}
	return dag.WalkDir(ctx, p, rec.Content, func(_ string, rec dag.Inode) error { return p.below(ctx, rec, links) })
}

// drive takes in all packs that the drive needs. If all is well, so is all that is in a
// folder, and nothing has to be looked up.
func (p *packsOf) drive() error {
	table := p.d.drive.table
	counted, err := table.Counted()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = true
	return table.Packs(func(k blocks.Pack) bool {
		if k.Live > 0 || !counted {
			p.all[packName{k.Group, k.Number}] = true
		}
		return true
	})
}

// file takes in the packs of a file's content. A file without blocks of its own has
// none.
func (p *packsOf) file(ctx context.Context, f dag.File) error {
	if f.Root.IsZero() || f.Size == 0 {
		return nil
	}
	if err := p.block(ctx, f.Root); err != nil {
		return err
	}
	return dag.Chunks(ctx, p, f, 0, f.Chunks(), func(_ int64, l link.Link) error { return p.block(ctx, l) })
}

// allWell reports whether nothing is the matter with any pack of the drive.
func (d *Daemon) allWell() bool {
	r := d.repair.Report()
	f, err := d.drive.frailty()
	return err == nil && f.Weak+f.Frail+r.Injured+r.Lost+r.AtRisk+r.Unasked == 0
}

// Get implements dag.Getter.
func (p *packsOf) Get(ctx context.Context, l link.Link) ([]byte, error) {
	if err := p.block(ctx, l); err != nil {
		return nil, err
	}
	return p.d.drive.reader.Get(ctx, l)
}

// block takes in the pack that a block is read from.
func (p *packsOf) block(ctx context.Context, l link.Link) error {
	places, err := p.d.drive.reader.Places(ctx, l)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all[packName{places[0].Group, places[0].Number}] = true
	}
	return err
}

// judge says how the packs are.
func (p *packsOf) judge(out *control.PathStatus) {
	groups := map[group.ID]bool{}
	var proven []time.Time
	var f plan.Frailty
	for name := range p.all {
		out.Packs++
		h, ok := p.d.repair.PackHealth(name.group, name.number)
		g, found, err := p.d.drive.table.Group(name.group)
		pack, known, perr := p.d.drive.table.Pack(name.group, name.number)
		if err = errors.Join(err, perr); found && err == nil {
			if weak, frail := f.Add(g.Class, g.Coding, p.d.drive.live(g, pack), p.d.drive.sink.judge); weak || frail {
				groups[name.group] = true
			}
		}
		if !ok || !found || err != nil { // repair has not heard of it yet
			if err != nil || !found || !known || pack.Acked.Count() != int(g.Coding.N) { // nor has each holder taken it
				out.PacksUnasked++
			}
			continue
		}
		out.ShardsMissing += int(g.Coding.N) - h.Live
		count(out, h)
		if h.Health != health.Healthy || h.AtRisk {
			groups[name.group] = true
		}
		proven = append(proven, h.Proven)
	}
	out.PacksWeak, out.PacksFrail = f.Weak, f.Frail
	if len(proven) == out.Packs && len(proven) > 0 {
		out.Proven = slices.MinFunc(proven, time.Time.Compare)
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
	if h.Away {
		out.PacksAway++
	}
	if h.AtRisk {
		out.PacksAtRisk++
	}
	if h.Unasked > 0 {
		out.PacksUnasked++
	}
}
