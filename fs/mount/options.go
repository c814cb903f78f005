package mount

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// Options say how to mount. The zero value is a private, writable mount.
//
// Permissions are always checked by the kernel, from the owner, mode and access
// control list of each file. Set-user-id bits and device files, which come from
// where the drive's other devices are, are not honoured unless root says so.
type Options struct {
	// Home is the daemon's state directory. Neither may the mount hide it nor
	// may it lie in there. Empty: not checked.
	Home string
	// Source is what the table of mounts, and the first column of df, call the drive: what
	// /etc/fstab does, or mount(8) takes it for one that is not mounted. Empty: Name.
	Source string
	// AllowOther lets other users than the one who mounts look into the drive,
	// as far as the permissions of the files allow.
	AllowOther bool
	// ReadOnly makes the kernel refuse every change.
	ReadOnly bool
	// NoAtime leaves access times alone.
	NoAtime bool
	// NoExec refuses to run programs from the drive.
	NoExec bool
	// SetUser honours set-user-id and set-group-id bits, Devices lets device
	// files be opened. Only root may ask for them.
	SetUser, Devices bool
	// NonEmpty allows to mount over a directory that has entries; they are
	// hidden while the drive is mounted.
	NonEmpty bool
	// UID and GID, where set, are shown as the owner of every file.
	UID, GID *uint32
	// Log takes what nobody waits for; nil discards it.
	Log *slog.Logger
	// Trace logs every request, at debug level. It shows names, but no content
	// beyond the first bytes; it is slow.
	Trace bool
	// Stock has go-fuse's own request loop serve the drive. It is there to be
	// compared with.
	Stock bool
}

// source is what the mount is called.
func (o *Options) source() string { return cmp.Or(o.Source, Name) }

// flagOptions are the options without a value.
var flagOptions = map[string]func(*Options){
	"allow_other":         func(o *Options) { o.AllowOther = true },
	"ro":                  func(o *Options) { o.ReadOnly = true },
	"rw":                  func(o *Options) { o.ReadOnly = false },
	"noatime":             func(o *Options) { o.NoAtime = true },
	"relatime":            func(o *Options) { o.NoAtime = false },
	"noexec":              func(o *Options) { o.NoExec = true },
	"exec":                func(o *Options) { o.NoExec = false },
	"nonempty":            func(o *Options) { o.NonEmpty = true },
	"default_permissions": func(*Options) {}, // always so
	"suid":                func(o *Options) { o.SetUser = true },
	"nosuid":              func(o *Options) { o.SetUser = false },
	"dev":                 func(o *Options) { o.Devices = true },
	"nodev":               func(o *Options) { o.Devices = false },
}

// valueOptions are the options with a value.
var valueOptions = map[string]func(*Options, string) error{
	"uid": func(o *Options, v string) (err error) { o.UID, err = parseID(v); return },
	"gid": func(o *Options, v string) (err error) { o.GID, err = parseID(v); return },
}

// fstabOptions are meant for mount(8) and systemd, which may pass them on.
var fstabOptions = []string{"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail"}

// needlessOptions ask for what is so, or for less work with times than there is.
var needlessOptions = []string{"async", "nodiratime", "lazytime", "nolazytime"}

// Parse adds what a list of options says, as given to -o: separated by commas,
// later ones win. The error is an *OptionError.
func (o *Options) Parse(list string) error {
	for _, opt := range strings.Split(list, ",") {
		if err := o.parseOne(strings.TrimSpace(opt)); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) parseOne(opt string) error {
	name, value, hasValue := strings.Cut(opt, "=")
	if set, ok := valueOptions[name]; ok {
		if err := set(o, value); err != nil || !hasValue {
			return &OptionError{opt, ErrOptionValue, "write it as " + name + "=NUMBER, such as " + name + "=1000"}
		}
		return nil
	}
	if set, ok := flagOptions[name]; ok {
		if hasValue {
			return &OptionError{opt, ErrOptionValue, "write it as " + name + ", it takes no value"}
		}
		set(o)
		return nil
	}
	switch {
	case opt == "", slices.Contains(fstabOptions, opt), slices.Contains(needlessOptions, opt), strings.HasPrefix(opt, "x-"), name == "comment":
		return nil
	}
	return &OptionError{opt, ErrUnknownOption, "known are " + strings.Join(knownOptions(), ", ")}
}

// Known are those of some options that Parse knows, whatever their values; or Remount, if
// they ask for that.
func Known(options []string) []string {
	remount := slices.Contains(options, "remount")
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool {
		return errors.Is(new(Options).parseOne(strings.TrimSpace(o)), ErrUnknownOption) && !(remount && (o == "remount" || isKernelWord(o)))
	})
}

// knownOptions lists all options that do something.
func knownOptions() []string {
	var names []string
	for name := range flagOptions {
		names = append(names, name)
	}
	for name := range valueOptions {
		names = append(names, name+"=N")
	}
	slices.Sort(names)
	return names
}

func parseID(s string) (*uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil, err
	}
	id := uint32(n)
	return &id, nil
}
