package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skep/chunker/keyring"
)

var (
	// ErrNone says that there is no home at a path yet.
	ErrNone = errors.New("there is no skep home here yet")
	// ErrExists says that a home is there already.
	ErrExists = errors.New("there is a skep home already")
	// ErrInUse says that another daemon serves the home.
	ErrInUse = errors.New("another skep daemon serves this home")
)

// Dir is the path of a home.
type Dir string

// Default is the home that $SKEP_HOME names, else the one that the XDG base
// directory specification suggests for state.
func Default() (Dir, error) {
	if d := os.Getenv("SKEP_HOME"); d != "" {
		return Dir(d), nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return Dir(filepath.Join(d, "skep")), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home directory: set SKEP_HOME or use --home: %w", err)
	}
	return Dir(filepath.Join(user, ".local", "state", "skep")), nil
}

// Path is the path of something in the home.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Socket is where the daemon listens for commands.
func (d Dir) Socket() string { return d.Path("control.sock") }

// maxSocket is how long the path of a Unix socket can be.
const maxSocket = len(unix.RawSockaddrUnix{}.Path) - 1

// Fits reports, as an error, that the home's path is too long for the socket
// in it.
func (d Dir) Fits() error {
	abs, err := filepath.Abs(d.Socket())
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if more := len(abs) - maxSocket; more > 0 {
		return fmt.Errorf("home %s: the path is %d bytes too long for the socket in it: choose a shorter one with --home", d, more)
	}
	return nil
}

// Log is where a daemon in the background writes its log.
func (d Dir) Log() string { return d.Path("daemon.log") }

// Settings are what the user chose for a home.
type Settings struct {
	Version   int      `json:"version"`
	Drive     string   `json:"drive,omitempty"` // hexadecimal id; empty for a peer without a drive
	Prefix    uint32   `json:"prefix,omitempty"`
	Listen    []string `json:"listen,omitempty"`
	Bootstrap []string `json:"bootstrap,omitempty"`
	Offer     int64    `json:"offer"` // bytes for others
	// Cache is how many bytes of the disk the drive may take; 0 is a share.
	Cache  int64  `json:"cache,omitempty"`
	Region string `json:"region,omitempty"`
	Domain string `json:"domain,omitempty"`
	// DeadAfter is the one time scale of health; 0 is the default.
	DeadAfter Duration `json:"dead_after,omitempty"`
	// RepairPaused says that nothing is to be rebuilt.
	RepairPaused bool `json:"repair_paused,omitempty"`
}

// Duration is a time.Duration that reads as "72h" in the settings.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

const settingsVersion = 1

// Exists reports whether there is a home.
func (d Dir) Exists() bool {
	_, err := os.Stat(d.Path("settings.json"))
	return err == nil
}

// Create makes a new home with these settings and keys. With a passphrase, the
// keys are sealed under it.
//
// last, if not nil, is called when the home has all but the settings, which make it one:
// if it fails, or the process is ended before it returns, there is no home.
func (d Dir) Create(s Settings, keys keyring.Local, passphrase []byte, last func() error) error {
	if d.Exists() {
		return fmt.Errorf("%w: %s", ErrExists, d)
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if err := os.Chmod(string(d), 0o700); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	b, err := keyring.EncodeLocal(keys, passphrase, keyring.Cost{})
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	if err := d.WriteFile("keys", b); err != nil {
		return err
	}
	if last != nil {
		if err := last(); err != nil {
			return err
		}
	}
	if err := d.SaveSettings(s); err != nil {
		return err
	}
	if err := os.Remove(d.Path(begunFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("home: %w", err)
	}
	return d.flush()
}

// SaveSettings writes the settings.
func (d Dir) SaveSettings(s Settings) error {
	s.Version = settingsVersion
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return d.WriteFile("settings.json", append(b, '\n'))
}

// Settings reads the settings.
func (d Dir) Settings() (Settings, error) {
	var s Settings
	b, err := os.ReadFile(d.Path("settings.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if d.isBeingMade() {
			return s, fmt.Errorf("%w, %s: wait until it is made", ErrBeingMade, d)
		}
		return s, fmt.Errorf("%w: %s", ErrNone, d)
	}
	if err != nil {
		return s, fmt.Errorf("home: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("home: %s is damaged: %w; put it right, or bring the drive back by its words in another home: skep recover --help",
			d.Path("settings.json"), err)
	}
	if s.Version != settingsVersion {
		return s, fmt.Errorf("home: %s is of version %d; this skep reads version %d", d, s.Version, settingsVersion)
	}
	return s, nil
}

// Keys opens the key file. It fails with keyring.ErrLocked where that needs a
// passphrase and none is given.
func (d Dir) Keys(passphrase []byte) (keyring.Local, error) {
	b, err := os.ReadFile(d.Path("keys"))
	if err != nil {
		return keyring.Local{}, fmt.Errorf("home: %w", err)
	}
	keys, err := keyring.DecodeLocal(b, passphrase)
	if err == nil {
		return keys, nil
	}
	err = fmt.Errorf("%s: %w", d.Path("keys"), err)
	if !errors.Is(err, keyring.ErrLocked) && !errors.Is(err, keyring.ErrPassphrase) {
		err = Gone(err)
	}
	return keys, err
}

// temporary begins the names of files that are being written.
const temporary = ".new-"

// WriteFile writes a file of the home, whole or not at all, readable by its
// owner only; when it returns, the file survives power loss.
func (d Dir) WriteFile(name string, b []byte) error {
	tmp, err := os.CreateTemp(string(d), temporary+name+"-")
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), d.Path(name))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("home: %w", err)
	}
	return d.flush()
}

// flush has the names in the home survive power loss.
func (d Dir) flush() error {
	dir, err := os.Open(string(d))
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("home: %w", err)
	}
	return nil
}

// ReadFile reads a file of the home; nil if it is not there.
func (d Dir) ReadFile(name string) ([]byte, error) {
	b, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	return b, nil
}

// Free is how many bytes are free on the disk that the home is on, or will be.
func (d Dir) Free() (int64, error) {
	_, free, err := d.Disk()
	return free, err
}

// Disk is how large that disk is, and how many bytes of it are free, for this user.
func (d Dir) Disk() (size, free int64, err error) {
	at, err := filepath.Abs(string(d))
	if err != nil {
		return 0, 0, fmt.Errorf("home: %w", err)
	}
	var st unix.Statfs_t
	for {
		err = unix.Statfs(at, &st)
		if up := filepath.Dir(at); errors.Is(err, fs.ErrNotExist) && up != at {
			at = up
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("home: %s: %w", at, err)
		}
		return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
	}
}

// lockFile is what is locked.
const lockFile = "lock"

// Lock keeps other daemons out until the process ends or release is called. Files that
// somebody was writing who was ended then are removed.
func (d Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(d.Path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrInUse, d)
		}
		return nil, fmt.Errorf("home: lock: %w", err)
	}
	d.removeUnfinished()
	return func() { _ = f.Close() }, nil
}

// removeUnfinished removes what WriteFile left when it was ended; what stays, stays
// until the next time.
func (d Dir) removeUnfinished() {
	entries, _ := os.ReadDir(string(d))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			_ = os.Remove(d.Path(e.Name()))
		}
	}
}
