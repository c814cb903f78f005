package tree

import (
	"context"
	"fmt"
)

// Path returns the path of an inode below the root, by the name under which it
// was last known, for messages; what cannot be told is left out.
func (t *Tree) Path(ino Ino) string {
	path := ""
	for depth := 0; ino != Root && depth < 256; depth++ {
		r, err := t.rowNow(ino)
		if err != nil || r.name == "" {
			return fmt.Sprintf("inode %d%s", uint64(ino), path)
		}
		path = "/" + r.name + path
		ino = r.parent
	}
	if path == "" {
		return "/"
	}
	return path
}

// Find returns the inode that a path below the root leads to, without
// following symbolic links.
func (t *Tree) Find(ctx context.Context, path string) (Attr, error) {
	a, err := t.Attr(ctx, Root)
	for name, rest := "", path; rest != "" && err == nil; {
		name, rest, _ = cutPath(rest)
		if name != "" {
			a, err = t.Lookup(ctx, a.Ino, name)
		}
	}
	return a, err
}

func cutPath(p string) (first, rest string, ok bool) {
	for i := range len(p) {
		if p[i] == '/' {
			return p[:i], p[i+1:], true
		}
	}
	return p, "", false
}
