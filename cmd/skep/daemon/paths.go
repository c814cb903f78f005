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

// relative turns a path into one below the drive's root: a path in a mount, or
// one that is below the root already.
func (d *Daemon) relative(path string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir := range d.mounts {
		if rel, err := filepath.Rel(dir, path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return strings.TrimPrefix(rel, "."), nil
		}
	}
	if filepath.IsAbs(path) {
		return "", errors.New("it is not in a mount of the drive")
	}
	return path, nil
}
