package model

import "bytes"

// FileOf is the number of the file that an operation is about; 0 if there is
// none.
func (t *Tree) FileOf(op Op) uint64 {
	if op.Kind > Map && op.Kind <= Unmap {
		op = op.mapped()
	}
	if op.Kind.hasHandle() && (op.Kind != Map || op.Path == "") {
		if h, open := t.handles[op.Handle]; open {
			return h.node.ID
		}
		return 0
	}
	if n, err := t.Find(op.Path); err == 0 {
		return n.ID
	}
	return 0
}

// Adopt makes the contents of files those of a listing, if that is as the tree
// in all else, and each content is as in one of two others or mixed of both.
func (t *Tree) Adopt(l, a, b Listing) bool {
	own := t.Listing()
	if len(own) != len(l) {
		return false
	}
	for path, e := range own {
		got, there := l[path]
		if !there || got.DifferApart(e) != nil || e.Mtime != 0 && got.Mtime != e.Mtime || e.IsFile() && !mixed(got.Content, a.content(e.File), b.content(e.File)) {
			return false
		}
	}
	t.Take(l)
	return true
}

// Take makes the contents of files those of a listing.
func (t *Tree) Take(l Listing) {
	for path, e := range l {
		if n, err := t.Find(path); err == 0 && e.IsFile() {
			n.Content = bytes.Clone(e.Content)
		}
	}
}

func (l Listing) content(file uint64) []byte {
	for _, e := range l {
		if e.File == file {
			return e.Content
		}
	}
	return nil
}

// mixed reports whether each byte is that of one of two, or of the end of one.
func mixed(p, a, b []byte) bool {
	at := func(v []byte, i int) byte {
		if i < len(v) {
			return v[i]
		}
		return 0
	}
	for i, x := range p {
		if x != at(a, i) && x != at(b, i) {
			return false
		}
	}
	return len(p) >= min(len(a), len(b)) && len(p) <= max(len(a), len(b))
}
