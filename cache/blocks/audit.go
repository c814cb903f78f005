package blocks

import (
	"errors"
	"fmt"

	"skep/chunker/blockindex"
	"skep/chunker/link"
)

// Fault is a place where the account does not say what the blocks themselves
// do.
type Fault struct {
	Link link.Link        // of the block that is concerned; zero for a pack
	Pack blockindex.Place // of the pack that is concerned
	What string
}

func (f Fault) Error() string {
	if !f.Link.IsZero() {
		return fmt.Sprintf("block %v: %s", f.Link, f.What)
	}
	return fmt.Sprintf("pack %d of group %v: %s", f.Pack.Number, f.Pack.Group, f.What)
}

// Audit reads all blocks whose children are counted, counts again, and compares.
// Roots are the blocks that something else than a block needs, beside those that
// are held. Nothing may change the account meanwhile.
func (t *Table) Audit(roots []link.Link, children Children, found func(Fault)) error {
	a := auditor{t: t, found: found, refs: map[link.Hash]uint64{}, live: map[blockindex.Place]uint64{}, links: map[link.Hash]link.Link{}}
	held, err := t.held()
	if err != nil {
		return err
	}
	for _, l := range held {
		a.refer(l)
	}
	for _, l := range roots {
		a.refer(l)
	}
	for _, step := range []func() error{func() error { return a.count(children) }, a.compare, a.packs} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type auditor struct {
	t     *Table
	found func(Fault)
	refs  map[link.Hash]uint64
	links map[link.Hash]link.Link     // of what is referred to, until its row is seen
	live  map[blockindex.Place]uint64 // by group and number
}

func (a *auditor) refer(l link.Link) {
	a.refs[l.Hash]++
	a.links[l.Hash] = l
}

// each calls fn for every block row.
func (a *auditor) each(fn func(Block) error) error {
	var bad error
	err := a.t.st.Scan([]byte{tableBlock}, []byte{tableBlock + 1}, func(k, v []byte) bool {
		b, err := decodeBlock(v)
		if err == nil && string(k[1:]) != string(b.Link.Hash[:]) {
			err = errRow
		}
		if err == nil {
			err = fn(b)
		}
		bad = err
		return err == nil
	})
	return errors.Join(err, bad)
}

// count adds up the references of all blocks that say they are counted.
func (a *auditor) count(children Children) error {
	return a.each(func(b Block) error {
		if !b.Expanded {
			return nil
		}
		kids, err := children(b.Link)
		if err != nil {
			a.found(Fault{Link: b.Link, What: err.Error()})
			return nil
		}
		for _, k := range kids {
			a.refer(k)
		}
		return nil
	})
}

// compare holds the rows against what was counted.
func (a *auditor) compare() error {
	err := a.each(func(b Block) error {
		delete(a.links, b.Link.Hash)
		if got := a.refs[b.Link.Hash]; got != b.Refs {
			a.found(Fault{Link: b.Link, What: fmt.Sprintf("%d references are counted, there are %d", b.Refs, got)})
		}
		if b.Refs == 0 {
			return nil
		}
		if len(b.Places) == 0 {
			a.found(Fault{Link: b.Link, What: "is needed and lies nowhere"})
			return nil
		}
		home := b.Places[0]
		a.live[blockindex.Place{Group: home.Group, Number: home.Number}] += uint64(home.Length)
		return nil
	})
	for _, l := range a.links {
		a.found(Fault{Link: l, What: "is needed and not in the account"})
	}
	return err
}

// packs holds the packs against the blocks that are at home in them.
func (a *auditor) packs() error {
	var idle []blockindex.Place
	err := a.t.Packs(func(p Pack) bool {
		at := blockindex.Place{Group: p.Group, Number: p.Number}
		if got := a.live[at]; got != p.Live {
			a.found(Fault{Pack: at, What: fmt.Sprintf("%d bytes count as needed, %d are", p.Live, got)})
		}
		delete(a.live, at)
		if p.MostlyDead() {
			idle = append(idle, at)
		}
		return true
	})
	for _, at := range idle {
		if _, watched, werr := a.t.st.Get(watchKey(at.Group, at.Number)); werr != nil || !watched {
			a.found(Fault{Pack: at, What: "is mostly dead, and nobody would fold or delete it"})
		}
	}
	for at, n := range a.live {
		a.found(Fault{Pack: at, What: fmt.Sprintf("%d bytes in it are needed, and it is not in the account", n)})
	}
	return err
}
