package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skep/test/blockdev"
	"skep/test/harness"
	"skep/test/liar"
)

func TestMain(m *testing.M) {
	liar.Main()
	blockdev.Main()
	os.Exit(harness.Main(m))
}

// steps runs the steps of a story in order; none makes sense without those
// before it.
type steps struct{ t *testing.T }

func (s steps) step(name string, fn func(t *testing.T)) {
	s.t.Helper()
	if !s.t.Run(name, fn) {
		s.t.FailNow()
	}
}

// source is the tree that is copied: that of the Go library, over ten thousand
// files; all of Go, programs and tests included, at length; or a part of the
// library in short runs.
func source(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	root := strings.TrimSpace(string(out))
	if os.Getenv("SKEP_SOAK") != "" {
		return root
	}
	dir := filepath.Join(root, "src")
	if testing.Short() {
		return filepath.Join(dir, "net")
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
