package writeback_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/chunker/commit"
	"skep/test/memswarm"
	"skep/test/seed"
)

// The devices of a drive live on while the swarm changes: files come and go, holders are
// away, packs are stored in other codings, groups end, devices are opened again, lose
// their index, let go of content, are recovered, and end for good. Whatever comes, the
// newest commit of each that lives is read by a stranger, and is what it was.
func TestHistoriesOfDevices(t *testing.T) {
	histories, steps := 2, 80
	if testing.Short() {
		histories, steps = 1, 40
	}
	rnd := rand.New(rand.NewPCG(seed.For(t), 1))
	for range histories {
		h := &history{t: t, rnd: rnd, swarm: memswarm.New(peersOfHistory, 2, 3)}
		d := h.add()
		d.open(newDrive)
		t.Cleanup(d.close)
		for range steps {
			h.step()
		}
		h.allAreThere()
		h.check()
	}
}

const (
	peersOfHistory   = 12
	devicesOfHistory = 3
)

// history is one of a drive.
type history struct {
	t       *testing.T
	rnd     *rand.Rand
	swarm   *memswarm.Swarm
	devices []*lived // that live
	made    uint32   // devices, ever
	silent  bool     // some holders are away
	content uint64   // seed of the newest content
}

// lived is a device of a history.
type lived struct {
	*device
	files     map[string]string // of its tree
	published map[string]string // by the newest commit that it made or began with; nil: none
	head      commit.Head       // of that
	looked    time.Time         // when it looked around last
	alone     bool              // and found nobody else
}

func (h *history) add() *lived {
	l := &lived{device: &device{t: h.t, dir: h.t.TempDir(), swarm: h.swarm, class: 21, number: h.made}, files: map[string]string{}}
	l.sink = h.swarm
	l.publish = func(ctx context.Context, head commit.Head) error {
		l.head = head
		return h.swarm.Publish(ctx, head)
	}
	l.device.alone = func(since time.Time) bool { return l.alone && l.looked.After(since) }
	h.made++
	h.devices = append(h.devices, l)
	return l
}

// step does something at random, and looks at the outcome now and then.
func (h *history) step() {
	l := h.devices[h.rnd.IntN(len(h.devices))]
	at := h.rnd.IntN(100)
	for _, one := range []struct {
		weight int
		do     func(*lived)
	}{
		{30, h.put}, {12, h.remove}, {20, h.sync}, {6, h.recode}, {6, h.takeAway}, {8, h.look}, {4, h.reopen}, {2, h.loseIndex},
		{4, h.evict}, {3, h.renew}, {3, h.recover}, {2, h.end},
	} {
		if at < one.weight {
			one.do(l)
			break
		}
		at -= one.weight
	}
	if h.rnd.IntN(4) == 0 {
		h.allAreThere()
		h.check()
	}
}

func (h *history) put(l *lived) {
	name := []string{"", "a/", "b/", "a/c/"}[h.rnd.IntN(4)] + fmt.Sprint("f", h.rnd.IntN(12))
	from := uint64(h.rnd.IntN(int(h.content + 1))) // a duplicate
	if h.rnd.IntN(5) > 0 {
		h.content++
		from = h.content
	}
	sizes := []int{0, 100, 600, 5000, 17_000, 70_000, 300_000, 1_300_000}
	b := random(from, sizes[h.rnd.IntN(len(sizes))])
	l.put(name, b)
	l.files[name] = string(b)
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		l.files[dir+"/"] = ""
	}
}

// names are the files of a device, in order.
func (l *lived) names() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(l.files)), func(name string) bool { return strings.HasSuffix(name, "/") })
}

func (h *history) remove(l *lived) {
	names := l.names()
	if len(names) == 0 {
		return
	}
	name := names[h.rnd.IntN(len(names))]
	dir, base := l.parent(name)
	if err := l.tree.Unlink(ctx, dir, base); err != nil {
		h.t.Fatal(err)
	}
	delete(l.files, name)
}

func (h *history) sync(l *lived) {
	before := l.head
	err := l.engine.Sync(ctx)
	if err != nil && !h.silent {
		h.t.Fatal(err)
	}
	if err == nil || l.head != before {
		l.published = maps.Clone(l.files)
	}
}

// recode has new groups be in another coding.
func (h *history) recode(*lived) {
	c := [][2]int{{1, 1}, {1, 2}, {2, 3}, {4, 7}, {6, 11}}[h.rnd.IntN(5)]
	h.swarm.Recode(c[0], c[1])
}

func (h *history) takeAway(*lived) {
	h.allAreThere()
	n := h.rnd.IntN(9)
	for _, i := range h.rnd.Perm(peersOfHistory)[:n] {
		h.swarm.Set(i, func(holder *memswarm.Holder) { holder.Down = true })
	}
	h.silent = n > 0
}

func (h *history) allAreThere() {
	for i := range peersOfHistory {
		h.swarm.Set(i, func(holder *memswarm.Holder) { holder.Down = false })
	}
	h.silent = false
}

func (h *history) look(l *lived) {
	if l.looked, l.alone = time.Now(), len(h.devices) == 1; l.alone {
		l.engine.Looked()
	}
}

func (h *history) reopen(l *lived) {
	l.close()
	l.alone = false
	l.open(nil)
}

func (h *history) loseIndex(l *lived) {
	h.allAreThere()
	l.loseIndex()
	l.alone = false
	l.open(nil)
}

// evict has a device let go of half of what it need not have.
func (h *history) evict(l *lived) {
	h.allAreThere()
	for _, name := range l.names() {
		if h.rnd.IntN(2) == 0 {
			continue
		}
		a := must(l.tree.Find(ctx, name))
		must(l.tree.Evict(ctx, a.Ino, false))
		must(l.tree.EvictSmall(ctx, a.Ino))
	}
	if err := l.tree.FinishEvictions(ctx); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) renew(l *lived) { must(l.engine.RenewLeases(ctx)) }

// recover makes a new device that begins with the newest head, if who made that lives.
func (h *history) recover(*lived) {
	h.allAreThere()
	for _, from := range h.devices {
		if from.published != nil && len(h.devices) < devicesOfHistory && from.head == h.swarm.Head() {
			l := h.add()
			l.files, l.published, l.head = maps.Clone(from.published), maps.Clone(from.published), from.head
			l.device.recover()
			return
		}
	}
}

// end has a device end for good.
func (h *history) end(l *lived) {
	if len(h.devices) > 1 {
		l.close()
		h.devices = slices.DeleteFunc(h.devices, func(o *lived) bool { return o == l })
	}
}

// check compares what living devices have, and have published, with what they should.
func (h *history) check() {
	h.t.Helper()
	for _, l := range h.devices {
		check(h.t, l.listTree(), l.files)
		if l.published != nil {
			check(h.t, listHead(h.t, h.swarm, l.head), l.published)
		}
	}
	if h.t.Failed() {
		h.t.FailNow()
	}
}
