package model

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Differ says in what a listing is not as wanted; nil if it is. Which names
// belong to one file counts, its number does not.
func Differ(got, want Listing) error {
	numbers := map[uint64]uint64{}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		g, there := got[path]
		if !there {
			return fmt.Errorf("%q is missing", path)
		}
		w := want[path]
		if n, known := numbers[w.File]; known && n != g.File {
			return fmt.Errorf("%q is not the same file as another name of it", path)
		}
		numbers[w.File] = g.File
		if err := g.Differ(w); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	for path := range got {
		if _, wanted := want[path]; !wanted {
			return fmt.Errorf("%q is there", path)
		}
	}
	return nil
}

// Differ says in what an entry is not as wanted. A modification time counts if
// one was set.
func (e Entry) Differ(want Entry) error {
	if err := e.DifferApart(want); err != nil {
		return err
	}
	switch {
	case want.Mtime != 0 && e.Mtime != want.Mtime:
		return fmt.Errorf("modified at %d, want %d", e.Mtime, want.Mtime)
	case e.Size != want.Size:
		return fmt.Errorf("size %d, want %d", e.Size, want.Size)
	}
	return DifferBytes(e.Content, want.Content)
}

// DifferApart is Differ without what is in a file and when that was changed.
func (e Entry) DifferApart(want Entry) error {
	switch {
	case e.Mode != want.Mode:
		return fmt.Errorf("mode %o, want %o", e.Mode, want.Mode)
	case e.Nlink != want.Nlink:
		return fmt.Errorf("%d links, want %d", e.Nlink, want.Nlink)
	case e.Target != want.Target:
		return fmt.Errorf("leads to %q, want %q", e.Target, want.Target)
	case !maps.Equal(e.Xattrs, want.Xattrs):
		return fmt.Errorf("attributes %q, want %q", e.Xattrs, want.Xattrs)
	}
	return nil
}

// IsFile reports whether the entry is a regular file.
func (e Entry) IsFile() bool { return e.Mode&unix.S_IFMT == unix.S_IFREG }

// DifferBytes says where two contents differ.
func DifferBytes(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Errorf("other bytes from %d on: %x, want %x (%d and %d bytes)", i, head(got[i:]), head(want[i:]), len(got), len(want))
}

func head(p []byte) []byte { return p[:min(len(p), 8)] }
