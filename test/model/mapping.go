package model

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mapLength is how much of a file is mapped, whether it is so long or not.
const mapLength = 32 << 20

// mapFile maps a file and keeps no descriptor of it.
func (m *Mount) mapFile(op Op) error {
	fd := -1
	if op.Path != "" {
		if err := m.isFile(op.Path); err != nil {
			return err
		}
		var err error
		if fd, err = unix.Open(m.path(op.Path), os.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(fd)
	} else if h, open := m.handles[op.Handle]; !open {
		return unix.EBADF
	} else if fd = h.fd; h.flags&3 != os.O_RDWR {
		return unix.EACCES
	}
	if _, there := m.handles[op.Handle+mappings]; there {
		return nil
	}
	look, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	pages, err := unix.Mmap(fd, 0, mapLength, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(look)
		return err
	}
	m.keep(op.Handle+mappings, mounted{look, os.O_RDWR, pages})
	return nil
}

// onMapping does an operation through a mapping: within the file.
func (m *Mount) onMapping(op Op) ([]byte, error) {
	h, there := m.handles[op.Handle+mappings]
	if !there {
		return nil, unix.EBADF
	}
	if op.Kind == Unmap {
		delete(m.handles, op.Handle+mappings)
		err := unix.Munmap(h.pages)
		if cerr := unix.Close(h.fd); err == nil {
			err = cerr
		}
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return nil, err
	}
	end := min(op.Off+op.Len, st.Size)
	if op.Off >= end {
		return nil, nil
	}
	if op.Kind == LoadMapped {
		p := make([]byte, end-op.Off)
		return p, get(p, h.pages[op.Off:end])
	}
	err := put(h.pages[op.Off:end], op.Bytes())
	if err == nil && op.Flags&os.O_SYNC != 0 {
		err = unix.Msync(h.pages, unix.MS_SYNC)
	}
	return nil, err
}

// put stores as many bytes as there is room for into mapped pages. The kernel copies
// them there: so a server that is gone is an error, and nobody waits in a page fault.
func put(pages, p []byte) error {
	p = p[:min(len(p), len(pages))]
	return through(func(fd int) error {
		err := all(len(p), func(at int) (int, error) { return unix.Pwrite(fd, p[at:], int64(at)) })
		if err == nil {
			err = all(len(p), func(at int) (int, error) { return unix.Pread(fd, pages[at:len(p)], int64(at)) })
		}
		return err
	})
}

// get loads bytes from mapped pages in the same way.
func get(p, pages []byte) error {
	return through(func(fd int) error {
		err := all(len(p), func(at int) (int, error) { return unix.Pwrite(fd, pages[at:], int64(at)) })
		if err == nil {
			err = all(len(p), func(at int) (int, error) { return unix.Pread(fd, p[at:], int64(at)) })
		}
		return err
	})
}

// all does something with n bytes, as many at a time as it likes.
func all(n int, do func(at int) (int, error)) error {
	for at := 0; at < n; {
		some, err := do(at)
		if err != nil {
			return err
		}
		at += some
	}
	return nil
}

// through lends a file that is nowhere.
func through(do func(fd int) error) error {
	fd, err := unix.MemfdCreate("copied", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}
