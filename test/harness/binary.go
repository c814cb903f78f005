package harness

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"skep/cmd/skep/cli"
	"skep/test/posix/ordinary"
)

// BinaryEnv names a binary to test instead of building one, such as one that
// was built with -race.
const BinaryEnv = "SKEP_TEST_BINARY"

// program is the program under test. It is part of the test's own binary so that a
// cached result is known to be stale when the program has changed; so much of it as
// nothing leads to, the linker would leave out.
var program = cli.Main

// Main is to be called by TestMain in place of m.Run: it builds the binary,
// runs the tests and takes the binary away.
func Main(m *testing.M) int {
	if os.Getenv(BinaryEnv) != "" || program == nil {
		return ordinary.Main(m)
	}
	dir, err := os.MkdirTemp("", "skep-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "skep")
	if err := build(dir, bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	os.Setenv(BinaryEnv, bin) // also for runs as another user
	return ordinary.Main(m)
}

func build(dir, bin string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("go", "build", "-o", bin, "skep/cmd/skep").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Chmod(bin, 0o755)
}

// Binary is the path of the binary under test.
func Binary() string { return os.Getenv(BinaryEnv) }

// RaceDetected reports whether the binary under test was built with the race detector.
func RaceDetected(t testing.TB) bool {
	t.Helper()
	built, err := buildinfo.ReadFile(Binary())
	must(t, err)
	return slices.Contains(built.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
