package blocks

import (
	"encoding/binary"
	"errors"

	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
)

// tableWatch lists the packs that something may have to be done about: group,
// number. A pack is listed from when its number is given out until somebody finds
// that nothing has to, and again as soon as less than half of it is needed.
const tableWatch = 'u'

func watchKey(id group.ID, n uint16) []byte {
	k := packKey(id, n)
	k[0] = tableWatch
	return k
}

// MostlyDead reports whether less than half of a pack is needed.
func (p *Pack) MostlyDead() bool { return 2*p.Live < p.Total || p.Live == 0 }

// NextPack gives out the next number of a group, with what fn changes of the
// group's account. None is given out twice.
func (t *Table) NextPack(id group.ID, fn func(*group.Group)) (g group.Group, n uint16, err error) {
	err = t.updateGroup(id, func(row *group.Group, b *state.Batch) error {
		n = row.Packs
		row.Packs++
		fn(row)
		g = *row
		b.Put(watchKey(id, n), nil)
		return nil
	})
	return g, n, err
}

// Watched is a pack that something may have to be done about.
type Watched struct {
	Group  group.Group
	Number uint16
	// Pack is its account; nil if it never came to have one: some of its holders
	// may have their shards all the same.
	Pack *Pack
}

// Watched returns the packs that something may have to be done about.
func (t *Table) Watched() ([]Watched, error) {
	var places []blockindex.Place
	err := t.st.Scan([]byte{tableWatch}, []byte{tableWatch + 1}, func(k, _ []byte) bool {
		if len(k) == 1+32+2 {
			places = append(places, blockindex.Place{Group: group.ID(k[1:33]), Number: binary.BigEndian.Uint16(k[33:])})
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	groups := map[group.ID]group.Group{}
	out := make([]Watched, 0, len(places))
	for _, at := range places {
		g, known := groups[at.Group]
		if !known {
			if g, known, err = t.Group(at.Group); err != nil {
				return nil, err
			}
			groups[at.Group] = g
		}
		w := Watched{Group: g, Number: at.Number}
		p, there, err := t.Pack(at.Group, at.Number)
		if err != nil {
			return nil, err
		}
		if there {
			w.Pack = &p
		}
		if known {
			out = append(out, w)
		}
	}
	return out, nil
}

// Idle returns, for each group, the packs of which nothing is needed, nor can come
// to be: it is only what is stored, and not referred to yet, that a commit under way
// may still need. While references are counted anew, nobody knows of any.
func (t *Table) Idle() (map[group.ID]group.Bitmap, error) {
	if counted, err := t.Counted(); err != nil || !counted {
		return nil, err
	}
	watched, err := t.Watched()
	if err != nil {
		return nil, err
	}
	out := map[group.ID]group.Bitmap{}
	for _, w := range watched {
		if w.Pack == nil || w.Pack.Live > 0 {
			continue
		}
		fresh, err := t.HasOrphans(w)
		if err != nil {
			return nil, err
		}
		if !fresh {
			idle := out[w.Group.ID]
			idle.Add(w.Number)
			out[w.Group.ID] = idle
		}
	}
	return out, nil
}

// HasOrphans reports whether blocks of a pack are stored and not referred to yet.
func (t *Table) HasOrphans(w Watched) (found bool, err error) {
	var bad error
	start := membersOf(w.Group.ID, w.Number)
	err = t.st.Scan(start, state.PrefixEnd(start), func(k, _ []byte) bool {
		_, found, bad = t.st.Get(hashKey(tableOrphan, link.Hash(k[len(k)-32:])))
		return !found && bad == nil
	})
	return found, errors.Join(err, bad)
}

// Unwatch says that nothing has to be done about some packs now. One that came to
// be mostly dead meanwhile stays listed.
func (t *Table) Unwatch(packs []Watched) error {
	if len(packs) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Freeing()
	for _, w := range packs {
		p, there, err := t.Pack(w.Group.ID, w.Number)
		if err != nil {
			return err
		}
		if !there || !p.MostlyDead() {
			b.Delete(watchKey(w.Group.ID, w.Number))
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := t.st.Apply(&b)
	return err
}
