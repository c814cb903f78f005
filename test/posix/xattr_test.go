package posix

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestXattrs(t *testing.T) {
	variants(t, func(t *testing.T, d *drive) {
		p := d.path("f")
		must(t, os.WriteFile(p, []byte("x"), 0o644))
		big := bytes.Repeat([]byte("v"), 60_000)
		must(t, unix.Setxattr(p, "user.a", []byte("one"), 0))
		must(t, unix.Setxattr(p, "user.big", big, unix.XATTR_CREATE))
		must(t, unix.Setxattr(p, "user.empty", nil, 0))
		for _, tt := range []struct {
			what string
			err  error
			want error
		}{
			{"create what is there", unix.Setxattr(p, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST},
			{"replace what is not", unix.Setxattr(p, "user.no", nil, unix.XATTR_REPLACE), unix.ENODATA},
			{"too big", unix.Setxattr(p, "user.a", make([]byte, 65537), 0), unix.E2BIG},
			{"half an access control list", unix.Setxattr(p, "system.posix_acl_access", []byte{2, 0, 0, 0, 1, 0}, 0), unix.EINVAL},
			{"another name space", unix.Setxattr(p, "other.a", []byte("x"), 0), unix.EOPNOTSUPP},
			{"remove what is not", unix.Removexattr(p, "user.no"), unix.ENODATA},
			{"remove", unix.Removexattr(p, "user.empty"), nil},
		} {
			if !errors.Is(tt.err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.what, tt.err, tt.want)
			}
		}
		if _, err := unix.Getxattr(p, "user.big", make([]byte, 10)); err != unix.ERANGE {
			t.Errorf("a buffer that is too small: %v", err)
		}
		if n, err := unix.Getxattr(p, "user.big", nil); err != nil || n != len(big) {
			t.Errorf("size: %d, %v", n, err)
		}
		if _, err := unix.Listxattr(p, make([]byte, 3)); err != unix.ERANGE {
			t.Errorf("a list that is too small: %v", err)
		}
		d.remount()
		b := make([]byte, 65536)
		if n, err := unix.Getxattr(p, "user.big", b); err != nil || !bytes.Equal(b[:n], big) {
			t.Errorf("after remounting: %d bytes, %v", n, err)
		}
		n, err := unix.Listxattr(p, b)
		must(t, err)
		if got := string(b[:n]); got != "user.a\x00user.big\x00" && got != "user.big\x00user.a\x00" {
			t.Errorf("list: %q", got)
		}
	})
}

// TestTrustedXattrs are for root alone.
func TestTrustedXattrs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := newDrive(t, config{Options: "allow_other"})
	must(t, os.Chmod(parentOf(d.root), 0o755))
	must(t, os.WriteFile(d.path("f"), nil, 0o644))
	must(t, unix.Setxattr(d.path("f"), "trusted.t", []byte("x"), 0))
	must(t, unix.Setxattr(d.path("f"), "user.u", []byte("x"), 0))
	needs(t, "getfattr")
	out, err := other(d, "getfattr -m - f").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "user.u") || strings.Contains(string(out), "trusted") {
		t.Errorf("another user sees %s, %v", out, err)
	}
}
