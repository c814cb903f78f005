package main

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeFile writes random bytes that do not compress, and flushes them. Two files
// of one salt are alike.
func writeFile(path string, size int64, salt uint32) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(f, size, salt); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// fill writes so many random bytes.
func fill(f *os.File, size int64, salt uint32) error {
	p := randomBytes(4 << 20)
	for off := int64(0); off < size; {
		for at := 0; at < len(p); at += 64 << 10 { // no two chunks are alike
			binary.LittleEndian.PutUint64(p[at:], uint64(off)+uint64(at))
			binary.LittleEndian.PutUint32(p[at+8:], salt)
		}
		n, err := f.Write(p[:min(int64(len(p)), size-off)])
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if _, err := f.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func countTree(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += st.Size()
		return nil
	})
	return files, bytes, err
}

// cool takes the files below a directory out of the kernel's memory, so that
// reading them reads the disk.
func cool(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
