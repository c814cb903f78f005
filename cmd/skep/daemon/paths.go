package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"skep/cache/tree"
)

// find returns the inode at a path, in a mount or below the drive's root.
func (d *Daemon) find(ctx context.Context, path string) (tree.Ino, error) {
	rel, err := d.relative(path)
	if err != nil {
		return 0, err
	}
	a, err := d.drive.tree.Find(ctx, rel)
	return a.Ino, err
}

// relative turns a path into one below the drive's root: a path in a mount, also by
// way of symbolic links, or one that is below the root already.
func (d *Daemon) relative(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return path, nil
	}
	at := d.mountpoint()
	if rel, in := below(at, path); in {
		return rel, nil
	}
	// From the top, so that nothing is looked up in the mount itself, which may have
	// to wait for holders.
	for i := range path {
		if i == 0 || path[i] != '/' {
			continue
		}
		if real, err := filepath.EvalSymlinks(path[:i]); err == nil && real == at {
			return path[i+1:], nil
		}
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && real == at {
		return "", nil
	}
	return "", errors.New("it is not in a mount of the drive")
}

// mountpoint is where the drive is mounted; "" if it is not.
func (d *Daemon) mountpoint() string {
	if at, _ := d.places(); len(at) > 0 {
		return at[0]
	}
	return ""
}

// below returns a path as it is below a directory, if it is.
func below(dir, path string) (rel string, in bool) {
	rel, err := filepath.Rel(dir, path)
	if dir == "" || err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	if rel == "." {
		rel = ""
	}
	return rel, true
}
