package posix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKilledServer: what a write returned for is there after the server was
// killed, and the next mount needs no help.
func TestKilledServer(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		content := bytes.Repeat([]byte("kept "), 30_000)
		must(t, os.WriteFile(d.path("closed"), content, 0o644))
		open, err := os.Create(d.path("open"))
		must(t, err)
		defer open.Close()
		_, err = open.Write(content)
		must(t, err)
		edited, err := os.OpenFile(d.path("closed"), os.O_WRONLY, 0)
		must(t, err)
		defer edited.Close()
		_, err = edited.WriteAt([]byte("EDIT"), 10)
		must(t, err)
		for i := range 50 {
			must(t, os.WriteFile(d.path(fmt.Sprint("small-", i)), []byte{byte(i)}, 0o644))
		}
		must(t, os.Rename(d.path("small-0"), d.path("small-1")))
		d.Kill()
		if _, err := os.Stat(d.root); !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("the mount of a killed server: %v", err)
		}
		d.start()
		if b, err := os.ReadFile(d.path("open")); err != nil || !bytes.Equal(b, content) {
			t.Errorf("open when killed: %d bytes, %v", len(b), err)
		}
		copy(content[10:], "EDIT")
		if b, err := os.ReadFile(d.path("closed")); err != nil || !bytes.Equal(b, content) {
			t.Errorf("edited when killed: %d bytes, %v", len(b), err)
		}
		for i := 2; i < 50; i++ {
			if b, err := os.ReadFile(d.path(fmt.Sprint("small-", i))); err != nil || len(b) != 1 || b[0] != byte(i) {
				t.Errorf("small file %d: %v, %v", i, b, err)
			}
		}
		if b, err := os.ReadFile(d.path("small-1")); err != nil || len(b) != 1 || b[0] != 0 {
			t.Errorf("renamed: %v, %v", b, err)
		}
	})
	asUser(t)
}
