package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [PATH…]",
		Short: "What is safe, what is on its way, who holds it",
		Long: `Tells how the drive is: what is on this device only, how many packs have all their
shards, who holds them, and how much room there is. With paths, also for each of
them: local (on this device only), out (with enough holders to bring it back),
or safe (with all holders it should have), when that was last proved, and which
of its shards are missing. Exits with 1 if a path is not there or nothing can be
said of it.`,
		Example: `  skep status
  skep status ~/drive/thesis.tex
  skep status --json | jq .packs_below_target`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			var s control.Status
			if err := a.call(cmd.Context(), "/v1/status", daemon.StatusRequest{Paths: absolute(paths)}, &s); err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(s); err != nil {
					return err
				}
			} else {
				printStatus(a.out, s)
			}
			return untold(s.Paths)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}

// absolute makes paths absolute, as the daemon has a working directory of its own.
func absolute(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = p
		if abs, err := filepath.Abs(p); err == nil {
			out[i] = abs
		}
	}
	return out
}

// untold is why nothing can be said of some paths; nil if there are none.
func untold(paths []control.PathStatus) error {
	var errs []error
	for _, p := range paths {
		if p.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", p.Path, p.Error))
		}
	}
	return errors.Join(errs...)
}

func printStatus(w io.Writer, s control.Status) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	if s.Drive != "" {
		printDrive(line, s)
	}
	alive := 0
	for _, p := range s.Peers {
		if p.State == "alive" {
			alive++
		}
	}
	line("Swarm", "%d of %d known peers answer", alive, len(s.Peers))
	for _, p := range s.Peers {
		if p.Lies > 0 {
			line("", "%s sent what cannot be true, %s", p.ID, times(p.Lies))
		}
	}
	if s.Offered > 0 {
		line("For others", "%s of %s offered are taken", bytesOf(s.Hosting), bytesOf(s.Offered))
	}
	for _, p := range s.Paths {
		printPath(line, p, time.Now())
	}
}

// printPath tells how safe one file is.
func printPath(line func(string, string, ...any), p control.PathStatus, now time.Time) {
	if p.Error != "" {
		return // standard error tells
	}
	line("File", "%s: %s (%s, %s of it on this device)", p.Path, p.State, bytesOf(p.Size), bytesOf(p.Resident))
	switch {
	case p.Packs == 0:
		return
	case p.Proven.IsZero():
		line("", "with holders in %d packs; they have not proved yet that they have them", p.Packs)
	default:
		line("", "with holders in %d packs; last proved %s", p.Packs, humanize.RelTime(p.Proven, now, "ago", "from now"))
	}
	if p.PacksLost > 0 {
		line("", "%d of these packs cannot be read now: too few of their holders answer", p.PacksLost)
	}
	if p.ShardsMissing > 0 {
		line("", "%d of their shards are missing", p.ShardsMissing)
	}
	if p.PacksAtRisk > 0 {
		line("", "%d packs would have too few, if the holders that are silent now stayed away", p.PacksAtRisk)
	}
	if p.PacksUnasked > 0 {
		line("", "some holders of %d packs were not asked yet", p.PacksUnasked)
	}
	if len(p.Groups) > 0 {
		line("", "groups: %s", strings.Join(p.Groups, ", "))
	}
}

func printDrive(line func(string, string, ...any), s control.Status) {
	where := "not mounted"
	if len(s.Mounts) > 0 {
		where = "at " + strings.Join(s.Mounts, ", ")
	}
	line("Drive", "%s; %d files, %s", where, s.Files, bytesOf(s.Bytes))
	if s.IndexDamage != "" {
		line("Damaged", "%s", s.IndexDamage)
		line("", "nothing can be written, and what cannot be read fails; nothing is lost: skep down, then skep mount,")
		line("", "make the index anew from the newest commit and the journal")
	}
	printPending(line, s)
	printSafety(line, s)
	if !s.RecoveryOut {
		line("Recovery", "the newest recovery record is not out: until it is, the words may not bring this drive back")
	}
	if s.IndexTotal > 0 && !s.Read {
		line("Index", "%d of %d pieces of it are on this device", s.IndexDone, s.IndexTotal)
	}
	if s.RepairPaused {
		line("Repair", "paused (skep repair resume)")
	} else if s.Repairing > 0 {
		line("Repair", "%d shards are being rebuilt", s.Repairing)
	}
	printCache(line, s.Cache)
	if s.StoredBytes > 0 {
		line("At holders", "%s, parity included", bytesOf(s.StoredBytes))
	}
}

// printPending tells what is on its way.
func printPending(line func(string, string, ...any), s control.Status) {
	switch {
	case s.PendingFiles > 0 && s.Uploading:
		line("Uploading", "%d changes, %s; %s sent so far", s.PendingFiles, bytesOf(s.PendingBytes), bytesOf(s.UploadedNow))
	case s.PendingFiles > 0:
		line("Pending", "%d changes, %s, are on this device only", s.PendingFiles, bytesOf(s.PendingBytes))
	default:
		line("Pending", "nothing: all of it is out")
	}
	if s.LastError != "" {
		line("", "the last attempt to upload failed: %s", s.LastError)
	}
}

// printSafety tells how well what is out is kept.
func printSafety(line func(string, string, ...any), s control.Status) {
	switch {
	case s.PacksLost > 0:
		line("Safety", "%d of %d packs cannot be read now: too few of their holders answer", s.PacksLost, s.Packs)
	case s.PacksBelowTarget > 0:
		line("Safety", "%d of %d packs have fewer shards than they should (%d are missing)", s.PacksBelowTarget, s.Packs, s.ShardsMissing)
	case s.Packs > 0:
		line("Safety", "all %d packs have the shards they should", s.Packs)
	default:
		line("Safety", "nothing is with holders yet")
	}
	if s.PacksUnasked > 0 {
		line("", "as far as is known: some holders of %d packs were not asked yet", s.PacksUnasked)
	} else if !s.AsOf.IsZero() {
		line("", "as of %s, when the last of the holders was asked", humanize.Time(s.AsOf))
	}
	if s.PacksAtRisk > 0 {
		line("", "%d of them would not, if the holders that are silent now stayed away", s.PacksAtRisk)
	}
	for _, f := range s.Shortfall {
		line("", "%s", f)
	}
}

// printCache tells what the drive takes of this disk.
func printCache(line func(string, string, ...any), c control.Cache) {
	line("Here", "%s of its content; %s with all that belongs to it, of at most %s", bytesOf(c.Here), bytesOf(c.Used), bytesOf(c.Limit))
	if c.Evicted > 0 {
		line("", "%s are with holders only, and come when they are read", bytesOf(c.Evicted))
	}
	if c.Pinned > 0 {
		line("Pinned", "%s, of which %s are here", bytesOf(c.Pinned), bytesOf(c.PinnedHere))
	}
	if c.PinsTooBig {
		line("", "more is pinned than the cache has room for: give it more, or unpin something")
	}
	if c.Full {
		line("", "there is no room: writing is refused until something is out or deleted")
	}
}

// times is how often something happened, in words.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
