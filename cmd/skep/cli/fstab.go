package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"skep/cmd/skep/say"
	"skep/fs/mount"
)

// mount(8), and with it /etc/fstab, has filesystems of our type mounted by a
// program mount.fuse.skep. That is this one, under another name.

// isHelper reports whether the program was called as mount(8) calls its helpers.
func isHelper(argv []string) bool { return strings.HasPrefix(filepath.Base(argv[0]), "mount.") }

// helperStatus is the exit status of a helper that failed: mount(8) hands it on as its own,
// and has others than skep.
func helperStatus(err error) int {
	if exitStatus(err) == exitUsage {
		return 1 // incorrect invocation
	}
	return 32 // mount failure
}

// command returns the arguments of the command line that stand for how the
// program was called: by mount(8), or as skep. None: there is nothing to do.
func command(argv []string) ([]string, error) {
	if !isHelper(argv) {
		return argv[1:], nil
	}
	return helperCommand(argv[1:])
}

// helperCommand translates what mount(8) gives its helpers:
//
//	SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// SOURCE is the home of the drive, or the word skep for the one of the user who
// mounts. With -s, options that are not known are passed over; with -f, it is only looked
// whether all that can be understood. -n, not to write to mtab, and -v, to say more, change
// nothing. There is no mounting in another namespace than that of the daemon.
func helperCommand(argv []string) ([]string, error) {
	cmd := new(cobra.Command)
	f := cmd.Flags()
	sloppy, fake := f.BoolP("sloppy", "s", false, ""), f.BoolP("fake", "f", false, "")
	f.BoolP("no-mtab", "n", false, "")
	f.BoolP("verbose", "v", false, "")
	lists := f.StringArrayP("options", "o", nil, "")
	f.StringP("types", "t", "", "")
	f.StringP("namespace", "N", "", "")
	if err := cmd.ParseFlags(argv); err != nil {
		return nil, usageError{fmt.Errorf("mount.fuse.skep: %w", err)}
	}
	if f.Changed("namespace") {
		return nil, usageError{errors.New("-N: the daemon mounts in its own namespace; to mount in another one: nsenter --mount=NAMESPACE skep mount DIR")}
	}
	if f.NArg() != 2 {
		return nil, usageError{fmt.Errorf("mount.fuse.skep takes the home of a drive and a directory, not %s", say.Count(f.NArg(), "argument"))}
	}
	flags, rest := splitOptions(strings.Split(strings.Join(*lists, ","), ","))
	if *sloppy {
		rest = mount.Known(rest)
	}
	if *fake {
		return nil, checkOptions(strings.Join(rest, ","))
	}
	out := []string{"mount", f.Arg(1), "--" + sourceFlag, f.Arg(0)}
	if filepath.IsAbs(f.Arg(0)) {
		out = append(out, "--home", f.Arg(0))
	}
	out = append(out, flags...)
	if len(rest) > 0 {
		out = append(out, "-o", strings.Join(rest, ","))
	}
	return out, nil
}

// splitOptions divides the options of mount(8) into flags of ours and mount options.
func splitOptions(options []string) (flags, rest []string) {
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "":
		case "passphrase-file", "bootstrap":
			flags = append(flags, "--"+name, value)
		case "allow_suid", "allow_dev": // mount(8) keeps suid and dev to itself, as its defaults
			rest = append(rest, strings.TrimPrefix(name, "allow_"))
		default:
			rest = append(rest, o)
		}
	}
	return flags, rest
}
