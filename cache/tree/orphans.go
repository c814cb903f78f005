package tree

import (
	"sync"

	"skep/chunker/link"
)

// orphans are the committed files that no name leads to any more and that
// somebody still uses. No commit that is made from now on knows of them.
type orphans struct {
	mu sync.Mutex // guards m
	m  map[*inode]struct{}
}

func (o *orphans) add(in *inode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil {
		o.m = map[*inode]struct{}{}
	}
	o.m[in] = struct{}{}
}

// remove reports whether it was there.
func (o *orphans) remove(in *inode) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, there := o.m[in]
	delete(o.m, in)
	return there
}

func (o *orphans) all() []*inode {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]*inode, 0, len(o.m))
	for in := range o.m {
		out = append(out, in)
	}
	return out
}

// Needs are the roots of content that is used, not here, and of which a commit
// made later need not know: that of files that were unlinked while they are open.
// A directory that was removed is empty. They end with the process.
func (t *Tree) Needs() []link.Link {
	var out []link.Link
	for _, in := range t.orphans.all() {
		in.mu.Lock()
		if r := &in.row; !in.stale && !r.isDir() && !r.content.IsZero() && !r.isHere() {
			out = append(out, r.content)
		}
		in.mu.Unlock()
	}
	return out
}

// isHere reports whether all of a file's content is on this device.
func (r *row) isHere() bool {
	return r.has(flagInline) || r.has(flagBacking) && !r.has(flagPartial)
}
