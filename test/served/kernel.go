package served

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LinuxFrom reports whether the kernel is of this version or a later one: to carry a
// time of birth takes 6.6, to map a file past the page cache, too, and to pass files
// through takes 6.9.
func LinuxFrom(major, minor int) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		panic(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var ma, mi int
	if _, err := fmt.Sscanf(release, "%d.%d", &ma, &mi); err != nil {
		panic(fmt.Sprintf("BUG: the kernel is a %q: %v", release, err))
	}
	return ma > major || ma == major && mi >= minor
}
