package writeback_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// append makes a file longer.
func (d *device) append(path string, content []byte) {
	d.t.Helper()
	f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, path)).Ino, os.O_RDWR))
	defer f.Release()
	if _, err := f.WriteAt(ctx, content, must(d.tree.Find(ctx, path)).Size, false); err != nil {
		d.t.Fatal(err)
	}
}

// A log that is written all the time is committed again and again: with SKEP_SOAK a
// hundred times a day for a year, else a few days of which each begins with groups
// that are nearly full. What it leaves does not gather: the account, and the group
// table that every commit brings, have the groups of what lives, and so have the
// holders. Those are told of all others, also who was away.
func TestGroupsDoNotGather(t *testing.T) {
	perDay, days, left := 12, 5, uint16(8)
	if os.Getenv("SKEP_SOAK") != "" {
		perDay, days, left = 100, 365, group.MaxPacks
	}
	i := newIdle(t)
	var log strings.Builder
	i.put("log", nil)
	most, ended := 0, map[group.ID]bool{}
	for day := range days {
		away := day%4 == 1 // one holder, for a day
		i.swarm.Set(6, func(h *memswarm.Holder) { h.Down = away })
		i.fillGroups(left)
		for n := range perDay {
			line := fmt.Sprintf("day %d, line %d: %x\n", day, n, random(uint64(day*perDay+n), 400))
			i.append("log", []byte(line))
			log.WriteString(line)
			i.sync()
			i.later(24 * time.Hour / time.Duration(perDay))
			if n%4 == 0 { // every hour or so
				must(i.engine.RenewLeases(ctx))
			}
		}
		groups := must(i.table.Groups())
		most = max(most, len(groups))
		for _, g := range groups {
			ended[g.ID] = true
		}
	}
	i.swarm.Set(6, func(h *memswarm.Holder) { h.Down = false })
	for range 8 {
		must(i.engine.RenewLeases(ctx))
	}
	listed := i.listedGroups()
	t.Logf("%d commits: %d groups were seen, at most %d at once; the newest commit lists %d", days*perDay, len(ended), most, len(listed))
	const bound = 24 // those that packs are added to, and what lives
	if len(ended) < most+days/2 {
		t.Fatal("the test does not make groups")
	}
	if most > bound || len(listed) > bound {
		t.Errorf("%d groups gathered, the newest commit lists %d", most, len(listed))
	}
	if left := must(i.table.LetGoOf()); len(left) > 0 {
		t.Errorf("%d groups are left of which somebody has not heard the last", len(left))
	}
	for n := range 9 {
		if held, over := i.swarm.Groups(n); held > bound {
			t.Errorf("holder %d keeps %d groups that are not over, beside %d that are", n, held, over)
		}
	}
	i.want["log"] = log.String()
	i.pass(33, true) // whoever was away hears what is dead, as from repair, with the next lease
	check(t, i.committed(), i.want)
	i.audit()
}

// later lets time go by.
func (i *idle) later(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clock = i.clock.Add(d)
}

// listedGroups are those of the newest commit's group table.
func (d *device) listedGroups() (out []group.Group) {
	d.t.Helper()
	at := d.swarm.Head().Commit
	c := must(commit.Parse(must(d.reader.At(ctx, at))))
	for _, l := range c.Groups {
		out = append(out, must(commit.DecodeGroups(must(d.reader.At(ctx, l.In(at)))))...)
	}
	return out
}

// fillGroups leaves so many numbers of each group, as if the others had been given
// to packs that never came to be.
func (i *idle) fillGroups(left uint16) {
	i.t.Helper()
	for _, g := range must(i.table.Groups()) {
		for n := g.Packs; n < group.MaxPacks-left; n++ {
			if _, _, err := i.table.NextPack(g.ID, func(*group.Group) {}); err != nil {
				i.t.Fatal(err)
			}
		}
	}
	i.close()
	i.open(nil)
}

// endGroups has some groups of a drive end: they are full, and what was stored in
// them is written again.
func (i *idle) endGroups() (ended int) {
	i.t.Helper()
	before := map[group.ID]bool{}
	for _, g := range must(i.table.Groups()) {
		before[g.ID] = true
	}
	i.fillGroups(0)
	for n := range 6 {
		i.put("often", fmt.Appendf(nil, "%d", n))
		i.put(fmt.Sprint("d/", n), nil)
		i.want[fmt.Sprint("d/", n)] = ""
		i.sync()
	}
	must(i.engine.RenewLeases(ctx))
	for _, g := range must(i.table.Groups()) {
		delete(before, g.ID)
	}
	i.want["often"] = "5"
	return len(before)
}

// A group whose packs are dead as far as is known here is over only for a device that
// is alone: one whose disk was put back from a backup may have added packs to it since.
func TestGroupsEndOnlyOfWhoIsAlone(t *testing.T) {
	i := newIdle(t)
	var others atomic.Bool
	i.alone = func(time.Time) bool { return !others.Load() }
	i.fillGroups(0)
	for n := range 6 {
		i.put("often", fmt.Appendf(nil, "%d", n))
		i.put(fmt.Sprint("d/", n), nil)
		i.want[fmt.Sprint("d/", n)] = ""
		i.sync()
	}
	groups := func() int { return len(must(i.table.Groups())) }
	before := groups()
	others.Store(true)
	must(i.engine.RenewLeases(ctx))
	if n := groups(); n != before {
		t.Errorf("%d groups of %d are left though the device is not alone", n, before)
	}
	others.Store(false)
	must(i.engine.RenewLeases(ctx))
	if n := groups(); n >= before {
		t.Errorf("%d groups of %d are left when it is alone", n, before)
	}
	i.want["often"] = "5"
	check(t, i.committed(), i.want)
	i.audit()
}

// Who was away when a group ended is told when he is back, by a device that was
// stopped meanwhile, too; and not for ever.
func TestHolderThatWasAwayIsTold(t *testing.T) {
	i := newIdle(t)
	i.swarm.Set(2, func(h *memswarm.Holder) { h.Down = true })
	ended := i.endGroups()
	left := must(i.table.LetGoOf())
	if ended == 0 || len(left) == 0 {
		t.Fatalf("%d groups ended, of %d somebody has not heard", ended, len(left))
	}
	for _, l := range left {
		if holders := l.Untold().Slots; len(holders) != int(l.Group.Coding.N) || l.Told.Count() != len(holders)-1 {
			t.Errorf("of group %v, %d of %d holders have heard", l.Group.ID, l.Told.Count(), len(holders))
		}
	}
	i.close()
	i.open(nil)
	_, over := i.swarm.Groups(2)
	i.swarm.Set(2, func(h *memswarm.Holder) { h.Down = false })
	must(i.engine.RenewLeases(ctx))
	if _, now := i.swarm.Groups(2); now <= over || len(must(i.table.LetGoOf())) > 0 {
		t.Errorf("the holder that is back knows of %d groups that are over; %d are still to be told of", now, len(must(i.table.LetGoOf())))
	}

	i.swarm.Set(2, func(h *memswarm.Holder) { h.Down = true })
	i.endGroups()
	i.pass(31, true)
	if left := must(i.table.LetGoOf()); len(left) > 0 {
		t.Errorf("after a month of %d groups somebody is still to be told", len(left))
	}
	check(t, i.committed(), i.want)
	i.audit()
}

// Who has not heard of a group's end is known still after the index was lost, and the
// journal had been cut.
func TestUntoldHoldersSurviveALostIndex(t *testing.T) {
	i := newIdle(t)
	i.swarm.Set(2, func(h *memswarm.Holder) { h.Down = true })
	i.endGroups()
	before := must(i.table.LetGoOf())
	if len(before) == 0 {
		t.Fatal("nobody was away")
	}
	i.forgetJournal()
	i.loseIndex()
	i.open(nil)
	i.counted()
	if !i.lost {
		t.Fatal("the test did not lose anything")
	}
	known := map[group.ID]group.SlotSet{}
	for _, l := range must(i.table.LetGoOf()) {
		known[l.Group.ID] = l.Told
	}
	for _, l := range before {
		if told, ok := known[l.Group.ID]; !ok || told != l.Told {
			t.Errorf("of group %v, %d holders are known to have heard, %d had: %v", l.Group.ID, told.Count(), l.Told.Count(), ok)
		}
	}
	i.swarm.Set(2, func(h *memswarm.Holder) { h.Down = false })
	for range 4 {
		must(i.engine.RenewLeases(ctx))
	}
	if left := must(i.table.LetGoOf()); len(left) > 0 {
		t.Errorf("of %d groups somebody has not heard when all are back", len(left))
	}
	check(t, i.committed(), i.want)
	i.audit()
}

// failing takes leases and no packs.
type failing struct {
	*memswarm.Swarm
	fails atomic.Bool
}

func (f *failing) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if f.fails.Load() {
		return group.SlotSet{}, writeback.ErrTooFew
	}
	return f.Swarm.Store(ctx, g, lease, manifest, shards)
}

// As long as no holder takes a pack, as over a line that is too slow, new groups are
// tried, but not one for every pack that fails.
func TestGroupsInVainAreFew(t *testing.T) {
	i := newIdle(t)
	sink := &failing{Swarm: i.swarm}
	i.close()
	i.sink, i.publish = sink, i.swarm.Publish
	i.open(nil)
	before := len(must(i.table.Groups()))
	sink.fails.Store(true)
	i.put("f", random(1, 100_000))
	const tries = 60
	for range tries {
		if err := i.engine.Sync(ctx); !errors.Is(err, writeback.ErrTooFew) {
			t.Fatal(err)
		}
		i.later(30 * time.Second)
	}
	tried := len(must(i.table.Groups())) - before
	if most := 6 + 2 + tries/20; tried < 4 || tried > most {
		t.Errorf("%d groups were founded in half an hour, at most %d are to be", tried, most)
	}
	sink.fails.Store(false)
	i.sync()
	i.want["f"] = string(random(1, 100_000))
	check(t, i.committed(), i.want)
	must(i.engine.RenewLeases(ctx))
	if left := len(must(i.table.Groups())) - before; left > 3 {
		t.Errorf("%d of the groups that were tried in vain are left", left)
	}
}

// A device that is recovered never hears of groups that were let go of, though old
// pieces of the index name them; and lets go of those of the device before it, but
// leaves it to their leases what that may have added.
func TestRecoveredDeviceLetsGo(t *testing.T) {
	i := newIdle(t)
	if i.endGroups() == 0 {
		t.Fatal("no group ended")
	}
	i.sync()
	i.put("last", []byte("last"))
	i.want["last"] = "last"
	i.sync()
	r := recovered(t, i.swarm)
	r.counted()
	founded := len(must(r.table.Groups()))
	for name := range i.want {
		if !strings.HasSuffix(name, "/") {
			dir, base := r.parent(name)
			file := must(r.tree.Lookup(ctx, dir, base)).Ino
			if err := r.tree.Unlink(ctx, dir, base); err != nil {
				t.Fatal(err)
			}
			r.tree.Forget(file) // as the kernel does
		}
	}
	for n := range 6 { // what was there is given up, and its metadata folded
		r.put("new", []byte{byte(n)})
		r.sync()
	}
	i.swarm.Set(0, func(h *memswarm.Holder) { h.Down = true })
	must(r.engine.RenewLeases(ctx))
	left := 0
	for _, g := range must(r.table.Groups()) {
		if g.Founder != group.PeerKey(r.key().Public().(ed25519.PublicKey)) {
			left++
		}
	}
	if left >= founded {
		t.Errorf("%d groups of %d are still in the account", left, founded)
	}
	last := must(r.table.LetGoOf())
	if len(last) == 0 {
		t.Error("nobody was away")
	}
	for _, l := range last {
		if n := l.Group.Dead.Count(); n > int(l.Group.Packs) {
			t.Errorf("%d packs of another device's group are called dead, it is known to have begun %d", n, l.Group.Packs)
		}
	}
	check(t, r.committed(), map[string]string{"d/": "", "new": "\x05"})
	r.audit()
}

// The process may end at any moment of a group's end.
func TestLetGoSurvivesALostIndex(t *testing.T) {
	i := newIdle(t)
	if i.endGroups() == 0 {
		t.Fatal("no group ended")
	}
	before := len(must(i.table.Groups()))
	i.loseIndex()
	i.open(nil)
	i.counted()
	for n := range 3 {
		i.put("tick", []byte{byte(n)})
		i.sync()
		must(i.engine.RenewLeases(ctx))
	}
	i.want["tick"] = "\x02"
	if now := len(must(i.table.Groups())); now > before+4 {
		t.Errorf("%d groups are in the account after the index was lost, %d were", now, before)
	}
	check(t, i.committed(), i.want)
	i.audit()
}

// An owner's clock that was far ahead, or behind, for a while leaves nothing: leases
// go on when it is right again, and no holder deletes anything because of it.
func TestOwnersClockThatWasWrong(t *testing.T) {
	for _, wrong := range []time.Duration{900 * day, 300 * day, -900 * day, -396 * day} {
		t.Run(fmt.Sprintf("%d days", wrong/day), func(t *testing.T) {
			i := newIdle(t)
			right := i.swarm.Now
			ahead := wrong
			i.close()
			i.now = func() time.Time { return right().Add(ahead) }
			i.open(nil)
			for range 9 {
				_, _ = i.engine.RenewLeases(ctx)
			}
			i.put("d/f1", []byte("while the clock was wrong")) // what it was is given up
			i.want["d/f1"] = "while the clock was wrong"
			i.sync()
			i.close()
			ahead = 0
			i.open(nil)
			i.pass(300, false) // nobody is there: a lease that was made by a clock behind has ended
			check(t, i.committed(), i.want)
			i.pass(2, true)
			_, before := i.swarm.Bytes()
			i.pass(730, true)
			if _, shards := i.swarm.Bytes(); shards != before {
				t.Errorf("after two years with a clock that is right, %d of %d shards are left", shards, before)
			}
			i.put("d/f2", []byte("after"))
			i.want["d/f2"] = "after"
			i.sync()
			i.put("tick", nil)
			i.want["tick"] = ""
			i.sync()
			if _, shards := i.swarm.Bytes(); shards == 0 {
				t.Error("nothing is left")
			}
			check(t, i.committed(), i.want)
			i.audit()
		})
	}
}

// A release has the number of a lease that nobody was given yet; that of a group
// which was let go of, the last.
func TestReleaseIsNewest(t *testing.T) {
	i := newIdle(t)
	out, seen := group.PeerKey{77}, group.Bitmap{3}
	parse := func(id group.ID) group.Release {
		t.Helper()
		r, err := group.ParseRelease(must(i.engine.Release(ctx, id, out, seen)))
		if err != nil || r.Holder != out || r.Group != id || r.Packs != seen {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	g := must(i.table.Groups())[0]
	first := parse(g.ID)
	now, _, err := i.table.Group(g.ID)
	if err != nil || first.Number <= g.Lease || now.Lease != first.Number {
		t.Errorf("release %d, the newest lease is %d, was %d: %v", first.Number, now.Lease, g.Lease, err)
	}
	if again := parse(g.ID); again.Number <= first.Number {
		t.Errorf("release %d after %d", again.Number, first.Number)
	}
	if _, err := i.engine.Release(ctx, g.ID, g.Slots[0], seen); err == nil {
		t.Error("a holder is released")
	}

	for _, g := range must(i.table.Groups()) {
		if err := i.table.Left(g.ID, 0, out); err != nil {
			t.Fatal(err)
		}
	}
	if i.endGroups() == 0 {
		t.Fatal("no group ended")
	}
	must(i.engine.RenewLeases(ctx))
	left := must(i.table.LetGoOf())
	if len(left) == 0 {
		t.Fatal("a former holder of a group that was let go of is forgotten")
	}
	for _, l := range left {
		if r := parse(l.Group.ID); r.Number != l.Group.Lease || l.Group.Dead != group.AllPacks {
			t.Errorf("release %d of a group whose last lease is %d", r.Number, l.Group.Lease)
		}
		if err := i.table.Released(l.Group.ID, out); err != nil {
			t.Fatal(err)
		}
	}
	if left := must(i.table.LetGoOf()); len(left) != 0 {
		t.Errorf("%d groups are left of which all have heard", len(left))
	}
}
