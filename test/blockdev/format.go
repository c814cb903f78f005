package blockdev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// formatter makes an ext4. It is in no user's path.
const formatter = "/sbin/mkfs.ext4"

// Usable says why there can be no devices here; nil if there can.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("a block device needs root")
	}
	for _, path := range []string{"/dev/fuse", "/dev/loop-control", formatter} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("a block device needs %s: %w", path, err)
		}
	}
	return nil
}

// Format makes an empty ext4 on the device, as most have it, but with a small
// journal.
func (d *Device) Format() error {
	out, err := exec.Command(formatter, "-q", "-F", "-b", "4096", "-m", "0", "-N", "1024", "-J", "size=4",
		"-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", d.Path()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", formatter, err, out)
	}
	return nil
}
