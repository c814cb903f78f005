package cli

import (
	"fmt"
	"path/filepath"
	"strings"
)

// mount(8), and with it /etc/fstab, has filesystems of our type mounted by a
// program mount.fuse.skep. That is this one, under another name.

// command returns the arguments of the command line that stand for how the
// program was called: by mount(8), or as skep. None: there is nothing to do.
func command(argv []string) ([]string, error) {
	if !strings.HasPrefix(filepath.Base(argv[0]), "mount.") {
		return argv[1:], nil
	}
	return helperCommand(argv[1:])
}

// helperCommand translates what mount(8) gives its helpers:
//
//	SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// SOURCE is the home of the drive, or the word skep for the one of the user who
// mounts.
func helperCommand(argv []string) ([]string, error) {
	var points, options []string
	for i := 0; i < len(argv); i++ {
		switch arg := argv[i]; {
		case arg == "-f" || arg == "--fake":
			return nil, nil
		case arg == "-o" || arg == "-t" || arg == "-N":
			i++
			if i == len(argv) {
				return nil, usageError{fmt.Errorf("%s lacks its value", arg)}
			}
			if arg == "-o" {
				options = append(options, strings.Split(argv[i], ",")...)
			}
		case strings.HasPrefix(arg, "-"): // sloppy, verbose, not in mtab: all the same to us
		default:
			points = append(points, arg)
		}
	}
	if len(points) != 2 {
		return nil, usageError{fmt.Errorf("mount.fuse.skep takes the home of a drive and a directory, not %d arguments", len(points))}
	}
	return mountCommandOf(points[0], points[1], options), nil
}

// mountCommandOf makes a mount command; of the options, those are flags of ours
// that are no mount options.
func mountCommandOf(source, dir string, options []string) []string {
	out := []string{"mount", dir}
	if filepath.IsAbs(source) {
		out = append(out, "--home", source)
	}
	var rest []string
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "passphrase-file", "bootstrap":
			out = append(out, "--"+name, value)
		case "allow_suid", "allow_dev": // mount(8) keeps suid and dev to itself, as its defaults
			rest = append(rest, strings.TrimPrefix(name, "allow_"))
		default:
			rest = append(rest, o)
		}
	}
	if len(rest) > 0 {
		out = append(out, "-o", strings.Join(rest, ","))
	}
	return out
}
