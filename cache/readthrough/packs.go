package readthrough

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"skep/cache/blocks"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
)

// PackName names a pack.
type PackName struct {
	Group  group.ID
	Number uint16
}

// Packs gathers the packs that something lies in, and all that one has to read to come to
// it. It is a dag.Getter that takes in where what it gets lies. It may be used
// concurrently.
type Packs struct {
	r *Reader

	mu    sync.Mutex // guards all below
	all   map[PackName]bool
	every bool
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Packs) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "readthrough.Packs(…)") }

// Packs returns a Packs that has gathered nothing yet.
func (r *Reader) Packs() *Packs { return &Packs{r: r, all: map[PackName]bool{}} }

// All are the packs that were gathered, when nobody gathers any more.
func (p *Packs) All() map[PackName]bool { return p.all }

// Every reports whether these are all packs that the drive needs.
func (p *Packs) Every() bool { return p.every }

// Get implements dag.Getter.
func (p *Packs) Get(ctx context.Context, l link.Link) ([]byte, error) {
	if err := p.Block(ctx, l); err != nil {
		return nil, err
	}
	return p.r.Get(ctx, l)
}

// Block takes in the pack that a block is read from.
func (p *Packs) Block(ctx context.Context, l link.Link) error {
	places, err := p.r.Places(ctx, l)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all[PackName{places[0].Group, places[0].Number}] = true
	}
	return err
}

// File takes in the packs of a file's content. A file without blocks of its own has none.
func (p *Packs) File(ctx context.Context, f dag.File) error {
	if f.Root.IsZero() || f.Size == 0 {
		return nil
	}
	if err := p.Block(ctx, f.Root); err != nil {
		return err
	}
	var last link.Link
	return dag.Chunks(ctx, p, f, 0, f.Chunks(), func(_ int64, l link.Link) error {
		if l == last { // a hole is one block again and again
			return nil
		}
		last = l
		return p.Block(ctx, l)
	})
}

// Path takes in the packs of what is at a path below the drive's root, with all that is in
// it, if the newest commit has it there. If it is not to go deep, it takes in every pack in
// place of what is in a folder.
func (p *Packs) Path(ctx context.Context, path string, deep bool) (committed bool, err error) {
	newest, _ := p.r.Commit()
	if newest == nil {
		return false, nil
	}
	refs, err := newest.Refs()
	if err != nil {
		return false, err
	}
	for _, l := range refs {
		if err := p.Block(ctx, l); err != nil {
			return false, err
		}
	}
	rec, err := newest.RootRecord()
	if err != nil {
		return false, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		var ok bool
		if rec, ok, err = dag.LookupDir(ctx, p, p.r.names, rec.Content, name); err != nil || !ok {
			return false, err
		}
	}
	return true, p.below(ctx, rec, newest.Links, deep)
}

// below takes in the packs of the content of a file, or of a folder and of all that is in
// it.
func (p *Packs) below(ctx context.Context, rec dag.Inode, links link.Link, deep bool) error {
	if rec.Linked {
		linked, ok, err := dag.LookupDir(ctx, p, p.r.names, links, dag.InodeName(rec.ID))
		if err != nil || !ok {
			return err
		}
		rec = linked
	}
	if rec.Content.IsZero() {
		return nil // it lies with its name
	}
	if rec.Mode&dag.ModeType != dag.ModeDirectory {
		return p.File(ctx, rec.File())
	}
	if !deep {
		return p.drive()
	}
	if err := p.Block(ctx, rec.Content); err != nil {
		return err
	}
	return dag.WalkDir(ctx, p, rec.Content, func(_ string, rec dag.Inode) error { return p.below(ctx, rec, links, deep) })
}

// drive takes in all packs that the drive needs.
func (p *Packs) drive() error {
	counted, err := p.r.table.Counted()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = true
	return p.r.table.Packs(func(k blocks.Pack) bool {
		if k.Live > 0 || !counted {
			p.all[PackName{k.Group, k.Number}] = true
		}
		return true
	})
}
