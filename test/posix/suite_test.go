package posix

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// notOurs are the tests of the suite that no filesystem passes.
var notOurs = map[string]string{
	"FcntlFlockLocksFile": "it wants two locks of one process to conflict, which POSIX locks do not",
}

func TestSuite(t *testing.T) {
	variants(t, suite)
	t.Run("stock", func(t *testing.T) { suite(t, newDrive(t, config{Stock: true})) })
	asUser(t)
}

func suite(t *testing.T, d *drive) {
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if why, ok := notOurs[name]; ok {
				t.Skip(why)
			}
			dir := d.path(name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Errorf("removing what it left: %v", err)
			}
		})
	}
}
