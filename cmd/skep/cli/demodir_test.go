package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// What a demo left that was killed is taken away; one that lives stays, and so does
// whatever else somebody has called by such a name, be it a drive.
func TestClearDemos(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	own := filepath.Join(tmp, demoPrefix+"own")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "thesis"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	killed, release, err := demoDir()
	if err != nil {
		t.Fatal(err)
	}
	release()
	living, release, err := demoDir()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := clearDemos(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{filepath.Join(own, "thesis"): true, living: true, killed: false} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s is there: %v", filepath.Base(path), err == nil)
		}
	}
}
