package home

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	if _, err := d.Begin(); !errors.Is(err, errBeingMade) {
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
	if err := d.Create(Settings{}, keyring.Local{Device: secret.New()}, nil); err != nil {
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
	for _, name := range []string{"lock", ".begun123", "lost+found"} {
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
