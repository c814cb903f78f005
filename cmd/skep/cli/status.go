package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/say"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [PATH…]",
		Short: "What is safe, what is on its way, who holds it",
		Long: `Tells how the drive is: what is on this device only, how many packs have all their
shards, who holds them, and how much room there is. With paths, also how safe each of
them is, when its holders passed an audit last, and which of its shards are missing:

  local   on this device only, or names that lead to it are
  out     with enough holders to bring it back
  safe    with all holders it should have, but for a few that may be lost
  away    too few holders answer to read it now
  lost    too few holders have it to read it

A folder is as the worst of all that is in it. Exits with 1 if a path is not there or
nothing can be said of it. skep help terms explains all words.`,
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
func absolute(paths []string) [][]byte {
	out := make([][]byte, len(paths))
	for i, p := range paths {
		if abs, err := filepath.Abs(p); err == nil {
			p = abs
		}
		out[i] = []byte(p)
	}
	return out
}

// untold is why nothing can be said of some paths; nil if there are none.
func untold(paths []control.PathStatus) error {
	var errs []error
	for _, p := range paths {
		if p.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", nameOf(p), p.Error))
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
	printPeers(line, s)
	if s.Offered > 0 {
		line("For others", "%s of %s offered are taken", say.Bytes(s.Hosting), say.Bytes(s.Offered))
	}
	for _, p := range s.Paths {
		printPath(line, p, time.Now())
	}
}

// statusWidth is how wide the texts of status are, beside names.
const statusWidth = 80 - len("Safety       ")

// prose tells a text in as many lines as it takes.
func prose(line func(string, string, ...any), name, text string) {
	row := ""
	for _, word := range strings.Fields(oneLine(text)) {
		if row != "" && utf8.RuneCountInString(row)+1+utf8.RuneCountInString(word) > statusWidth {
			line(name, "%s", row)
			name, row = "", ""
		}
		if row != "" {
			row += " "
		}
		row += word
	}
	line(name, "%s", row)
}

// nameOf is a path as a terminal may show it.
func nameOf(p control.PathStatus) string {
	if p.Bytes != nil {
		return say.Path(string(p.Bytes))
	}
	return say.Path(p.Path)
}

// printPath tells how safe one file or folder is.
func printPath(line func(string, string, ...any), p control.PathStatus, now time.Time) {
	if p.Error != "" {
		return // standard error tells
	}
	if p.Folder {
		line("Folder", "%s: %s, with all that is in it", nameOf(p), p.State)
	} else {
		line("File", "%s: %s (%s, %s of it on this device)", nameOf(p), p.State, say.Bytes(p.Size), say.Bytes(p.Resident))
	}
	switch proved := auditWords(p.Proven, now); {
	case p.Packs == 0:
		return
	case p.All:
		line("", "nothing is the matter with any of the drive's %s; the holders %s", say.Count(p.Packs, "pack"), proved)
	default:
		line("", "with holders in %s; they %s", say.Count(p.Packs, "pack"), proved)
	}
	if away := p.PacksLost + p.PacksAway; away > 0 {
		line("", "%d of %s cannot be read now: too few holders answer", away, say.If(p.Packs, "it", "them"))
	}
	if p.PacksOnlyHere > 0 {
		line("", "%s", onlyHereWords(p.PacksOnlyHere))
	}
	if p.ShardsMissing > 0 {
		line("", "%s %s missing", say.Count(p.ShardsMissing, "shard"), say.If(p.ShardsMissing, "is", "are"))
	}
	if p.PacksAtRisk > 0 {
		line("", "%s would lack shards, if the holders that are silent now stayed away", say.Count(p.PacksAtRisk, "pack"))
	}
	if p.PacksFrail > 0 {
		line("", "%s", frailWords(p.PacksFrail))
	}
	if p.PacksWeak > 0 {
		line("", "%s", weakWords(p.PacksWeak))
	}
	if p.PacksUnasked > 0 {
		line("", "some holders of %s were not asked yet", say.Count(p.PacksUnasked, "pack"))
	}
	if len(p.Groups) > 0 {
		line("", "groups: %s", strings.Join(p.Groups, ", "))
	}
}

// auditWords say when holders proved last that they have what they say.
func auditWords(proven, now time.Time) string {
	if proven.IsZero() {
		return "have not passed an audit yet"
	}
	return "passed an audit " + humanize.RelTime(proven, now, "ago", "from now")
}

// worthTelling is how much has to wait to be given up for people to be told: each commit
// leaves a little of the one before.
const worthTelling = 1 << 20

func printDrive(line func(string, string, ...any), s control.Status) {
	where := "not mounted"
	if len(s.Mounts) > 0 {
		where = "at " + strings.Join(s.Mounts, ", ")
	} else if len(s.Held) > 0 {
		where = "detached from " + strings.Join(s.Held, ", ") + ", still held by programs or in another mount namespace"
	}
	line("Drive", "%s; %s, %s", where, say.Count(s.Files, "file"), say.Bytes(s.Bytes))
	if s.IndexDamage != "" {
		prose(line, "Damaged", s.IndexDamage)
		prose(line, "", "nothing can be written, and what cannot be read fails; nothing is lost: skep down, then skep mount, make the index anew from the newest commit and the journal")
	}
	if s.SetBack != "" {
		prose(line, "Set back", s.SetBack)
	}
	if s.Overtaken != "" {
		prose(line, "Overtaken", s.Overtaken)
	}
	printPending(line, s)
	printSafety(line, s)
	if s.Others != "" {
		prose(line, "Others", s.Others)
	}
	if s.UnneededBytes >= worthTelling {
		line("To be freed", "%s with %s at holders %s nothing any more", say.Count(s.Unneeded, "pack"), say.Bytes(s.UnneededBytes), say.If(s.Unneeded, "serves", "serve"))
		prose(line, "", s.UnneededUntil)
	}
	if !s.RecoveryOut {
		line("Recovery", "the newest recovery record is not out:")
		line("", "until it is, the words may not bring this drive back")
	}
	printIndex(line, s)
	if s.RepairPaused {
		line("Repair", "paused (skep repair resume)")
	} else if s.Repairing > 0 {
		line("Repair", "%s %s being rebuilt", say.Count(s.Repairing, "shard"), say.If(s.Repairing, "is", "are"))
	}
	printCache(line, s.Cache)
	if s.StoredBytes > 0 {
		line("At holders", "%s, parity included", say.Bytes(s.StoredBytes))
	}
}

// printIndex tells how far the block index is read on a device that joined the drive,
// or lost its index.
func printIndex(line func(string, string, ...any), s control.Status) {
	if s.IndexTotal == 0 || s.Read {
		return
	}
	rest := "the rest"
	if s.IndexDone < s.IndexTotal {
		line("Index", "%d of %s of it on this device", s.IndexDone, say.Count(s.IndexTotal, "piece"))
	} else {
		line("Index", "all of it is on this device; what the drive needs of it is being counted")
		rest = "some of what has to be read for that"
	}
	if s.IndexUnread != "" {
		prose(line, "", fmt.Sprintf("%s cannot be read now, and nothing is given back until it can: %s", rest, s.IndexUnread))
	}
}

// printPending tells what is on its way.
func printPending(line func(string, string, ...any), s control.Status) {
	switch {
	case s.PendingFiles > 0 && s.Uploading:
		line("Uploading", "%s, %s; %s sent so far", say.Count(s.PendingFiles, "change"), say.Bytes(s.PendingBytes), say.Bytes(s.UploadedNow))
	case s.PendingFiles > 0:
		line("Pending", "%s, %s, on this device only", say.Count(s.PendingFiles, "change"), say.Bytes(s.PendingBytes))
	default:
		line("Pending", "nothing: all of it is out")
	}
	switch {
	case s.SetBack != "": // which says why nothing goes out
	case s.SwarmFull != "":
		prose(line, "", s.SwarmFull)
	case s.LastError != "":
		prose(line, "", "the last attempt to upload failed: "+s.LastError)
	}
	if n := len(s.Unread); n > 0 {
		line("", "%s cannot go out, as parts that are not here cannot be read: %s", say.Count(n, "changed file"), say.Paths(s.Unread))
	}
}

// printSafety tells how well what is out is kept.
func printSafety(line func(string, string, ...any), s control.Status) {
	alive := answering(s.Peers)
	switch {
	case s.Joining && alive == 0 && s.PacksAway > 0: // nobody was asked who could answer
		line("Safety", "not known yet: the swarm is being joined")
		return
	case s.PacksLost+s.PacksAway > 0:
		line("Safety", "%d of %s cannot be read now: too few holders answer", s.PacksLost+s.PacksAway, say.Count(s.Packs, "pack"))
	case s.PacksBelowTarget > 0:
		line("Safety", "%d of %s %s fewer shards than there should be (%d missing)", s.PacksBelowTarget, say.Count(s.Packs, "pack"), say.If(s.PacksBelowTarget, "has", "have"), s.ShardsMissing)
	case s.Packs > 0:
		line("Safety", "all shards of %s are there", say.Count(s.Packs, "pack"))
	case len(s.Codings) > 0:
		line("Safety", "not known yet: the holders of %s are being asked", say.Count(packsOf(s.Codings), "pack"))
	default:
		line("Safety", "nothing is with holders yet")
	}
	if alive == 0 && s.Packs > 0 && s.Joining {
		line("", "as far as was known when the daemon ended last: the swarm is being joined")
		return
	} else if alive == 0 && s.Packs > 0 {
		line("", "as far as is known: nobody answers now")
	} else if s.PacksUnasked > 0 {
		prose(line, "", askedWords(s))
	} else if !s.AsOf.IsZero() {
		line("", "as of %s, when the last of the holders was asked", humanize.Time(s.AsOf))
	}
	if s.PacksOnlyHere > 0 {
		prose(line, "", onlyHereWords(s.PacksOnlyHere))
	}
	if s.PacksAtRisk > 0 {
		line("", "%s would lack shards, if the holders that are silent now stayed away", say.Count(s.PacksAtRisk, "pack"))
	}
	if s.PacksFrail > 0 {
		prose(line, "", frailWords(s.PacksFrail))
	}
	if s.PacksWeak > 0 {
		prose(line, "", weakWords(s.PacksWeak))
	}
	if n := len(s.Lost); n > 0 {
		line("", "%s %s parts that are in these packs alone: %s", say.Count(n, "file"), say.If(n, "has", "have"), say.Paths(s.Lost))
	}
	for _, f := range s.Shortfall {
		prose(line, "", f)
	}
}

// askedWords say how many of the holders were asked so far, and what that means for what
// else is told of safety.
func askedWords(s control.Status) string {
	if s.Asked >= s.Holders { // but for packs that nobody misses
		return fmt.Sprintf("as far as is known: some holders of %s were not asked yet", say.Count(s.PacksUnasked, "pack"))
	}
	text := fmt.Sprintf("as far as is known: %d of %s %s asked so far", s.Asked, say.Count(s.Holders, "holder"), say.If(s.Asked, "was", "were"))
	if s.PacksLost+s.PacksAway+s.PacksBelowTarget > 0 || len(s.Shortfall) > 0 {
		text += ", and the drive may be safer than it looks"
	}
	return text
}

// onlyHereWords say of packs that without this device they would be lost.
func onlyHereWords(packs int) string {
	return fmt.Sprintf("%s %s on this device only: too few of %s holders are left", say.Count(packs, "pack"), say.If(packs, "is", "are"), say.If(packs, "its", "their"))
}

// frailWords say of packs that they survive the loss of no holder.
func frailWords(packs int) string {
	return fmt.Sprintf("%s %s safe only as long as every holder of %s stays", say.Count(packs, "pack"), say.If(packs, "is", "are"), say.If(packs, "it", "them"))
}

// weakWords say of packs that they could be safer.
func weakWords(packs int) string {
	return fmt.Sprintf("%s could be safer with the peers there are now, and %s to be stored again", say.Count(packs, "pack"), say.If(packs, "is", "are"))
}

// packsOf is how many packs the account has.
func packsOf(codings []control.Coding) (n int) {
	for _, c := range codings {
		n += c.Packs
	}
	return n
}

// printCache tells what the drive takes of this disk.
func printCache(line func(string, string, ...any), c control.Cache) {
	line("Here", "%s of its content; it takes %s in all, of at most %s", say.Bytes(c.Here), say.Bytes(c.Used), say.Bytes(c.Limit))
	if c.Evicted > 0 {
		line("", "%s are with holders only, and come when they are read", say.Bytes(c.Evicted))
	}
	if c.Pinned > 0 {
		line("Pinned", "%s, of which %s are here, as counted %s", say.Bytes(c.Pinned), say.Bytes(c.PinnedHere), humanize.Time(c.PinnedAsOf))
	}
	if c.PinsTooBig {
		line("", "more is pinned than the cache has room for: give it more, or unpin something")
	}
	if c.Full {
		line("", "there is no room: writing is refused until something is out or deleted")
	}
}
