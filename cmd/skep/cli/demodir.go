package cli

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"skep/cmd/skep/home"
)

const (
	// demoPrefix begins the names of the directories of demos.
	demoPrefix = "skep-demo-"
	// demoMark is a file in each of them. What others call by such a name has none.
	demoMark = "this-is-a-skep-demo"
)

// demoDir makes the directory of a demo. As long as it lives, or until release, the
// demo has it locked, so that others can tell that it does.
func demoDir() (dir string, release func(), err error) {
	for {
		dir, err := os.MkdirTemp("", demoPrefix)
		if err != nil {
			return "", nil, err
		}
		release, ok, err := lockDir(dir)
		if ok {
			err = os.WriteFile(filepath.Join(dir, demoMark), nil, 0o600)
		}
		if ok || err != nil {
			return dir, release, err
		}
		// Somebody took it for a dead one before it was locked.
	}
}

// clearDemos removes the directories of this user's demos that were killed: nobody
// has them locked, and no process of theirs has one of the homes.
func clearDemos() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), demoPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if !isDemo(dir) {
			continue
		}
		release, ok, err := lockDir(dir)
		if err != nil || !ok {
			continue // another user's, or in use
		}
		if !homesInUse(dir) {
			err = os.RemoveAll(dir)
		}
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

// isDemo reports whether a demo made a directory.
func isDemo(dir string) bool {
	st, err := os.Lstat(filepath.Join(dir, demoMark))
	return err == nil && st.Mode().IsRegular()
}

// lockDir locks a directory of this user's; ok is false if somebody else has it, it is
// another user's, or it is gone.
func lockDir(dir string) (release func(), ok bool, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, ignoreGone(err)
	}
	release = func() { _ = unix.Close(fd) }
	var st, now unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && int(st.Uid) == os.Getuid() {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		ok = err == nil
	}
	if ok { // whoever had it before may have removed it
		err = unix.Lstat(dir, &now)
		ok = err == nil && now.Ino == st.Ino && now.Dev == st.Dev
	}
	if !ok {
		release()
		return nil, false, ignoreGone(err)
	}
	return release, true, nil
}

// ignoreGone drops the errors that say that a directory is not ours to take.
func ignoreGone(err error) error {
	for _, expected := range []error{unix.ENOENT, unix.EWOULDBLOCK, unix.EACCES, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, expected) {
			return nil
		}
	}
	return err
}

// homesInUse reports whether a daemon serves one of the homes in a directory.
func homesInUse(dir string) bool {
	locks, _ := filepath.Glob(filepath.Join(dir, "*", "lock"))
	for _, lock := range locks {
		release, err := home.Dir(filepath.Dir(lock)).Lock()
		if err != nil {
			return true
		}
		release()
	}
	return false
}
