package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// find returns the inode that a path leads to, by way of symbolic links.
func (d *Daemon) find(ctx context.Context, path string) (tree.Ino, error) {
	rel, err := d.relative(ctx, path, true)
	if err != nil {
		return 0, err
	}
	a, err := d.drive.tree.Find(ctx, rel)
	return a.Ino, err
}

// mostLinks is how many symbolic links a path may lead through, as for the kernel.
const mostLinks = 40

// relative turns a path into one below the drive's root: a path in a mount, also by
// way of symbolic links, or one that is below the root already. A link that is itself in
// the drive, and the last of the path, is followed only if follow says so. In the mount
// nothing is looked up but by the tree: ctx ends what waits for holders.
func (d *Daemon) relative(ctx context.Context, path string, follow bool) (string, error) {
	if !filepath.IsAbs(path) {
		return path, nil
	}
	at := d.mountpoint()
	done, rest := "/", path
	if rel, in := below(at, path); in {
		done, rest = at, rel
	}
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		done = filepath.Join(done, name)
		to, err := d.linkAt(ctx, at, done, follow || rest != "")
		if err != nil {
			return "", err
		}
		if to == "" {
			continue
		}
		if links++; links > mostLinks {
			return "", unix.ELOOP
		}
		if done = filepath.Dir(done); filepath.IsAbs(to) {
			done = "/"
		}
		rest = strings.TrimSuffix(to+"/"+rest, "/")
	}
	if rel, in := below(at, done); in {
		return rel, nil
	}
	return "", errors.New("it is not in a mount of the drive")
}

// linkAt is where the symbolic link at a path leads to, of which all but the end leads
// through none; "" if it is none, or is not to be followed in the drive.
func (d *Daemon) linkAt(ctx context.Context, at, path string, follow bool) (string, error) {
	rel, in := below(at, path)
	if !in {
		to, _ := os.Readlink(path) // what is not there leads to no mount
		return to, nil
	}
	if !follow {
		return "", nil
	}
	a, err := d.drive.tree.Find(ctx, rel)
	if err != nil || a.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", err
	}
	return d.drive.tree.Readlink(ctx, a.Ino)
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
