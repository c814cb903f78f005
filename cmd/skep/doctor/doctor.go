package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/journal"
	"skep/cache/space"
	"skep/cache/state"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
	"skep/cmd/skep/say"
	"skep/fs/mount"
)

// Verdict is how something is.
type Verdict string

// The verdicts.
const (
	Good   Verdict = "good"
	Odd    Verdict = "odd"    // it works, but not as well as it could
	Broken Verdict = "broken" // something will not work
)

// Finding is what one check found.
type Finding struct {
	What    string  `json:"what"`
	Verdict Verdict `json:"verdict"`
	Says    string  `json:"says"`
	Do      string  `json:"do,omitempty"` // about it
}

// Mounting tells whether this user can mount.
func Mounting() Finding {
	f := Finding{What: "mounting", Verdict: Good, Says: "this user can mount a drive"}
	switch err := mount.Usable(); {
	case err != nil:
		f.Verdict, f.Says = Broken, "this user cannot mount a drive"
		f.Do = err.Error()
	case !mount.MayPassthrough():
		f.Says = "this user can mount a drive; as root on Linux 6.9 or later, large files would be read and written faster"
	}
	return f
}

// Home tells whether the home can be used.
func Home(h home.Dir) Finding {
	f := Finding{What: "home", Verdict: Good, Says: string(h)}
	broken := func(says, do string) Finding {
		f.Verdict, f.Says, f.Do = Broken, says, do
		return f
	}
	if err := h.Fits(); err != nil {
		return broken(err.Error(), "choose a shorter path with --home or SKEP_HOME")
	}
	if e, ok := errors.AsType[*home.AccessError](h.Accessible()); ok {
		return broken(string(h)+" "+e.Says, e.Do)
	}
	st, err := os.Stat(string(h))
	switch {
	case errors.Is(err, os.ErrNotExist) || err == nil && !h.Exists():
		f.Verdict, f.Says, f.Do = Odd, "there is no drive or peer in "+string(h)+" yet", "make one with: skep init, or skep recover"
		if _, err := h.Settings(); errors.Is(err, home.ErrBeingMade) {
			f.Says, f.Do = err.Error(), ""
		}
		return f
	case err != nil:
		return broken(err.Error(), "look at the permissions of the folders above it")
	}
	if _, err := h.Settings(); err != nil {
		return broken(err.Error(), "put settings.json right by hand; all else in the home is still there")
	}
	if err := whole(h); err != nil {
		says, do, _ := strings.Cut(err.Error(), "; ")
		return broken(says, do)
	}
	if unix.Access(string(h), unix.W_OK) != nil {
		return broken(string(h)+" cannot be written to", "become the user whom it belongs to, or make its disk writable")
	}
	if st.Mode().Perm()&0o077 != 0 {
		f.Verdict, f.Says = Odd, fmt.Sprintf("%s is open to other users (mode %o)", h, st.Mode().Perm())
		f.Do = "chmod 700 " + string(h)
	}
	return f
}

// whole looks whether a home has lost something that it is nothing without. The
// journal is read if no daemon has it open.
func whole(h home.Dir) error {
	if err := h.Whole(); err != nil {
		return err
	}
	s, err := h.Settings()
	if err != nil || s.Drive == "" {
		return err
	}
	release, err := h.Lock()
	if err != nil {
		return nil // a daemon has opened it, or somebody else's home
	}
	defer release()
	if err = state.Check(h.Path("state")); errors.Is(err, journal.ErrDamaged) {
		err = home.Gone(err)
	}
	return err
}

// Daemon tells whether a daemon serves the home. ask asks it anything.
func Daemon(h home.Dir, ask func() error) Finding {
	f := Finding{What: "daemon", Verdict: Good, Says: "runs"}
	err := ask()
	switch {
	case err == nil:
		return f
	case h.Accessible() != nil:
		f.Verdict, f.Says = Odd, "cannot be asked by this user"
		return f
	case !h.Exists():
		f.Says = "there is none, as there is no home"
		return f
	}
	release, locked := h.Lock()
	switch {
	case locked == nil:
		release()
		f.Says = "does not run; " + starts(h) + " starts it"
	case errors.Is(locked, home.ErrInUse) && errors.Is(err, control.ErrNotRunning):
		f.Verdict, f.Says = Broken, holder(h)+" holds the home and takes no commands: it is starting, ending, or of another user"
		f.Do = "wait for its end; if it goes on, look at " + h.Log()
	case errors.Is(err, context.DeadlineExceeded):
		f.Verdict, f.Says = Broken, "does not answer"
		f.Do = "look at " + h.Log() + "; if it goes on, kill " + holder(h) + ", then " + starts(h) + ": what was written is kept"
	default:
		f.Verdict, f.Says = Broken, err.Error()
		f.Do = "look at " + h.Log()
	}
	return f
}

// Left tells of a mount that the daemon before has left behind dead; nothing if it has not.
func Left(m mount.Mark) []Finding {
	if dead, err := m.IsDead(); err != nil || !dead {
		return nil
	}
	at := mount.Quote(m.Dir)
	return []Finding{{What: "mount", Verdict: Broken, Says: "the mount at " + at + " is dead: its daemon was killed",
		Do: "mount the drive again: skep mount " + at + "; or take the dead mount away: skep umount " + at}}
}

// isPeer reports whether a home is that of a storage peer, without a drive.
func isPeer(h home.Dir) bool {
	s, err := h.Settings()
	return err == nil && s.Drive == ""
}

// starts is the command that starts the daemon of a home.
func starts(h home.Dir) string {
	if isPeer(h) {
		return "skep peer"
	}
	return "skep mount DIR"
}

// holder is who holds a home.
func holder(h home.Dir) string {
	return cmp.Or(h.Holder(), "a process")
}

// Drive tells how the drive of a daemon that runs is; nothing if there is none, or
// nothing is the matter with it.
func Drive(s control.Status) (out []Finding) {
	find := func(v Verdict, says, do string) {
		if says != "" {
			out = append(out, Finding{What: "drive", Verdict: v, Says: says, Do: do})
		}
	}
	find(Broken, s.IndexDamage, "make its index anew: skep down, then skep mount")
	find(Broken, s.SetBack, "recover the drive in another home")
	find(Broken, s.Overtaken, "go on with one of the two computers")
	switch {
	case s.SetBack != "":
	case s.SwarmFull != "":
		says, do, _ := strings.Cut(s.SwarmFull, "; ")
		find(Odd, says, do)
	case s.LastError != "":
		find(Odd, "the last attempt to upload failed: "+s.LastError, "look at what skep status says of the swarm; it is tried again")
	}
	if lost := s.PacksLost + s.PacksAway; lost > 0 {
		find(Odd, fmt.Sprintf("%d of %s cannot be read now: too few holders answer", lost, say.Count(s.Packs, "pack")), "see that the peers that skep status names run, and that this computer is online")
	}
	return out
}

// tooLittle is less room on the disk than there should be.
const tooLittle = 1 << 30

// Room tells how much room there is on the disk of a home, of which others may
// use so much more.
func Room(h home.Dir, offered, used int64) Finding {
	size, free, err := h.Disk()
	if err != nil {
		return Finding{What: "disk", Verdict: Broken, Says: err.Error()}
	}
	f := room(h, size, free, offered-used)
	if f.Do != "" && isPeer(h) {
		f.Do = "make room, or offer less (skep peer --offer SIZE): there is little for what others are to keep here"
	}
	return f
}

// room judges the room on a disk, of which some may be promised to others.
func room(h home.Dir, size, free, promised int64) Finding {
	f := Finding{What: "disk", Verdict: Good, Says: fmt.Sprintf("%s free on the disk of %s", say.Bytes(free), h)}
	if free-promised < tooLittle && promised > 0 {
		f.Says += fmt.Sprintf(", of which %s are offered to others", say.Bytes(promised))
	}
	switch {
	case free < min(tooLittle, space.Least(size)):
		f.Verdict, f.Do = Broken, "make room: what is written cannot be kept until it is uploaded"
	case free < tooLittle:
		f.Verdict, f.Do = Odd, "make room: little of a drive can be here at a time, and writing waits for what is uploaded"
		if promised > 0 {
			f.Do += "; or offer less: change \"offer\" in " + h.Path("settings.json") + " and start the daemon again"
		}
	case free-promised < tooLittle:
		f.Verdict = Odd
		f.Do = "offer less: change \"offer\" in " + h.Path("settings.json") + " and start the daemon again"
	}
	return f
}

// Reached is how a peer answered.
type Reached struct {
	Addr  string
	Err   error
	Took  time.Duration
	Clock time.Time // what it says the time is
	At    time.Time // when it said so, by our clock
}

// Peers tells how the peers by which the swarm is joined answer.
func Peers(all []Reached) (out []Finding) {
	if len(all) == 0 {
		return []Finding{{What: "swarm", Verdict: Odd, Says: "no peer is set to join a swarm by",
			Do: "give the address of one: skep init, skep mount or skep peer with --bootstrap ADDRESS (the first peer of a swarm needs none)"}}
	}
	for _, r := range all {
		f := Finding{What: "peer", Verdict: Good, Says: fmt.Sprintf("%s answers, in %v", r.Addr, r.Took.Round(time.Millisecond))}
		if r.Err != nil {
			f.Verdict, f.Says = Broken, fmt.Sprintf("%s does not answer: %v", r.Addr, r.Err)
			f.Do = "see that this computer is online, that the peer runs, and that nothing between blocks it; give another with --bootstrap"
		}
		out = append(out, f)
	}
	return out
}

// wrongClock is how far from those of others a clock may be.
const wrongClock = 5 * time.Minute

// built is a time that is past.
var built = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock compares this computer's clock with those of peers.
func Clock(now time.Time, all []Reached) Finding {
	f := Finding{What: "clock", Verdict: Good, Says: now.Format(time.RFC1123)}
	if now.Before(built) {
		f.Verdict, f.Says = Broken, "the clock says "+f.Says
		f.Do = "set it, for example with: timedatectl set-ntp true"
		return f
	}
	for _, r := range all {
		if r.Err != nil || r.Clock.IsZero() {
			continue
		}
		if off := r.At.Sub(r.Clock); off.Abs() > wrongClock {
			f.Verdict = Odd
			f.Says = fmt.Sprintf("differs from that of a peer by %v: one of them is wrong", off.Round(time.Second))
			f.Do = "if it is this one, set it: leases and records end by it"
			return f
		}
	}
	return f
}
