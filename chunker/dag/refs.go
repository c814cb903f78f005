package dag

import (
	"slices"

	"skep/chunker/link"
)

// Refs lists the links that a block of this package holds: each once, in the
// order in which they first appear, those inside of inode records included. These
// are the refs that Put was given for the block. A chunk has none. CBOR blocks
// other than inode records are not of this package: they give ErrCorrupt.
func Refs(codec uint64, plain []byte) ([]link.Link, error) {
	switch codec {
	case link.Raw:
		return nil, nil
	case link.CBOR:
		return recordRefs(plain)
	case link.DagPB:
		return nodeRefs(plain)
	}
	return nil, corrupt("block has the codec %#x", codec)
}

func recordRefs(plain []byte) ([]link.Link, error) {
	n, err := DecodeInode(plain)
	if err != nil {
		return nil, err
	}
	var refs refSet
	refs.add(n.Content)
	return refs.links, nil
}

func nodeRefs(plain []byte) ([]link.Link, error) {
	node, err := decodePB(plain)
	if err != nil {
		return nil, err
	}
	var refs refSet
	for i := range node.links {
		l, err := linkedBlock(node.links[i].cid)
		if err != nil {
			return nil, err
		}
		refs.add(l)
	}
	return refs.links, nil
}

// refSet collects links, each once, in order. The zero link is none.
type refSet struct {
	links []link.Link
	seen  map[link.Link]struct{} // once there are many
}

func (r *refSet) add(l link.Link) {
	if l.IsZero() || r.has(l) {
		return
	}
	r.links = append(r.links, l)
	if r.seen != nil {
		r.seen[l] = struct{}{}
	}
}

func (r *refSet) has(l link.Link) bool {
	const few = 8
	if len(r.links) < few {
		return slices.Contains(r.links, l)
	}
	if r.seen == nil {
		r.seen = make(map[link.Link]struct{}, 4*few)
		for _, have := range r.links {
			r.seen[have] = struct{}{}
		}
	}
	_, ok := r.seen[l]
	return ok
}
