package home

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// begunFile is there from when a home begins to be made until it is one.
const begunFile = "begun"

// made are what the making of a home leaves in it before the settings make it one.
var made = []string{"keys", "keyring", "recovery", "state", "packs"}

// Vacant reports, as an error, that a home cannot begin in a directory, as something
// else is in it. A disk of its own may be there, and what an attempt left that did not
// come to its end.
func (d Dir) Vacant() error {
	if d.Exists() {
		return fmt.Errorf("%w: %s; choose another one with --home", ErrExists, d)
	}
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if _, err := os.Stat(d.Path(begunFile)); err == nil {
		return nil
	}
	if err := d.unclaimed(); err != nil {
		return err
	}
	for _, e := range entries {
		if !isOfBeginning(e.Name()) {
			return fmt.Errorf("%s has other things in it (%q), and a home is for skep alone: choose a new or an empty directory with --home", d, e.Name())
		}
	}
	return nil
}

// isOfBeginning reports whether there may be such a name where a home begins: of a new
// disk, or of one who began a home a moment ago, or was ended then.
func isOfBeginning(name string) bool {
	return name == "lost+found" || name == lockFile || strings.HasPrefix(name, temporary+begunFile)
}

// Begin prepares a directory to become a home, and keeps others out of it until release
// is called: after Create, or when there will be no home. What an attempt left there that
// did not come to its end is removed; what is left of another home is not touched, and
// refused.
func (d Dir) Begin() (release func(), err error) {
	if d.Exists() {
		return nil, fmt.Errorf("%w: %s", ErrExists, d)
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	release, err = d.Lock()
	if errors.Is(err, ErrInUse) {
		return nil, fmt.Errorf("%w: %s; wait for its end, or choose another one with --home", ErrBeingMade, d)
	}
	if err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// ErrBeingMade says that somebody else is making the home at this moment.
var ErrBeingMade = errors.New("another skep command (init, recover or peer) is making this home")

// begin removes what an attempt left, in a directory that the caller has locked.
func (d Dir) begin() error {
	_, err := os.Stat(d.Path("settings.json"))
	if err == nil { // somebody made it before it was locked
		return fmt.Errorf("%w: %s", ErrExists, d)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("home: %w", err)
	}
	_, err = os.Stat(d.Path(begunFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.unclaimed(); err != nil {
			return err
		}
		return d.WriteFile(begunFile, nil)
	}
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	for _, name := range made {
		if err := os.RemoveAll(d.Path(name)); err != nil {
			return fmt.Errorf("home: %w", err)
		}
	}
	return nil
}

// unclaimed reports, as an error, that another home was there.
func (d Dir) unclaimed() error {
	for _, name := range made {
		if _, err := os.Stat(d.Path(name)); err == nil {
			if d.Exists() { // somebody has just made it
				return fmt.Errorf("%w: %s", ErrExists, d)
			}
			return fmt.Errorf("%s has what is left of another home (%s), which has lost its settings; choose another one with --home", d, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("home: %w", err)
		}
	}
	return nil
}

// ErrGone says that something is gone, or damaged, that a home is nothing without.
// What it was serves nothing any more; only a new home does.
var ErrGone = errors.New("it cannot be used any more: the recovery words bring the drive back, as it was synced last, " +
	"in another home (skep recover --home OTHER --words-file FILE --bootstrap ADDRESS); until then keep this one as it is")

// Gone adds to an error that the home of a drive cannot be used any more, and what
// to do then.
func Gone(err error) error { return fmt.Errorf("%w; %w", err, ErrGone) }

// errGonePeer says of the home of a peer without a drive that its keys are gone.
var errGonePeer = errors.New("what it held for others is of no use without them; begin a new peer in another home")

// Whole looks whether all is there that a home is nothing without. That it can be
// read, it does not look.
func (d Dir) Whole() error {
	s, err := d.Settings()
	if err != nil {
		return err
	}
	if s.Drive == "" {
		if _, err := os.Stat(d.Path("keys")); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("home: %s are gone: %w", d.Path("keys"), errGonePeer)
		}
		return nil
	}
	for _, name := range []string{"keys", "keyring"} {
		if st, err := os.Stat(d.Path(name)); errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
			return Gone(fmt.Errorf("home: %s is gone", d.Path(name)))
		}
	}
	logs, err := os.ReadDir(d.Path("state", "journal"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(logs) == 0 {
		return Gone(fmt.Errorf("home: the local state of the drive is gone: there is no journal in %s", d.Path("state")))
	}
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return nil
}
