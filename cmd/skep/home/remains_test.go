package home

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"skep/chunker/keyring"
	"skep/chunker/secret"
)

// Whoever begins a home has it for himself: another one is refused and touches nothing,
// until the first has given up or made it.
func TestBeginAtOnce(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "home"))
	release, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.Path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin(); !errors.Is(err, ErrBeingMade) {
		t.Errorf("a second one begins: %v", err)
	}
	if _, err := os.Stat(d.Path("state")); err != nil {
		t.Errorf("what the first one made: %v", err)
	}
	release() // it gave up
	if err := d.Vacant(); err != nil {
		t.Error(err)
	}
	release, err = d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path("state")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left of the first: %v", err)
	}
	if err := d.Create(Settings{}, keyring.Local{Device: secret.New()}, nil, nil); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := d.Begin(); !errors.Is(err, ErrExists) {
		t.Errorf("it is begun again: %v", err)
	}
	if err := d.begin(); !errors.Is(err, ErrExists) { // who waited for the lock
		t.Errorf("it is begun again: %v", err)
	}
	if _, err := os.Stat(d.Path(begunFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a home that is made is marked as begun: %v", err)
	}
}

// A home can begin where another one was ended before anything was made of it.
func TestBeginWasEnded(t *testing.T) {
	d := Dir(t.TempDir())
	for _, name := range []string{"lock", ".new-begun-123", "lost+found"} {
		if err := os.WriteFile(d.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Vacant(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(d.Path("photo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Vacant(); err == nil {
		t.Error("it is begun among other things")
	}
}

// Where the disk does not tell whether a home is there, or was begun, nothing is removed.
func TestBeginWhereNobodyKnows(t *testing.T) {
	for _, c := range []struct{ unknown, there string }{
		{"settings.json", begunFile}, {begunFile, ""}, {"state", ""},
	} {
		d := Dir(t.TempDir())
		if err := os.Symlink(c.unknown, d.Path(c.unknown)); err != nil { // it cannot be followed
			t.Fatal(err)
		}
		for _, name := range []string{"keyring", c.there} {
			if name == "" || c.unknown == "state" {
				continue
			}
			if err := os.WriteFile(d.Path(name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if release, err := d.Begin(); err == nil {
			release()
			t.Errorf("%s cannot be looked at: begun", c.unknown)
		}
		if _, err := os.Stat(d.Path("keyring")); err != nil && c.unknown != "state" {
			t.Errorf("%s cannot be looked at: %v", c.unknown, err)
		}
	}
}

// What was being written when its writer was ended goes when the home is locked next, and
// nothing else.
func TestUnfinishedFilesGo(t *testing.T) {
	d := Dir(t.TempDir())
	for _, name := range []string{"peers", ".new-peers-17", ".keep"} {
		if err := os.WriteFile(d.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	release, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := d.WriteFile("health", []byte("x")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(string(d))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{".keep", "health", "lock", "peers"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("there are %q, %v", names, err)
	}
}
