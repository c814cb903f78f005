package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skep/cache/tree"
	"skep/test/memdisk"
	"skep/test/model"
)

// Nested is an operation within another. B happens at a moment of A, while handles
// of Before are open, and After follows both.
type Nested struct {
	Passthrough bool       `json:",omitzero"`
	Full        bool       `json:",omitzero"` // what is fetched cannot be kept
	Setup       []model.Op `json:"-"`
	Before      []model.Op `json:",omitempty"`
	A           model.Op
	B           []model.Op `json:",omitempty"`
	Moment      int
	After       []model.Op `json:",omitempty"`
}

func (c Nested) String() string {
	s := Case{c.Passthrough, c.Setup, c.Before}.String()
	s += fmt.Sprintf("then, at moment %d of %v:", c.Moment, c.A)
	for _, op := range c.B {
		s += fmt.Sprintf(" %v;", op)
	}
	if len(c.After) > 0 {
		s += fmt.Sprintf(" then %v", c.After)
	}
	return s
}

// act is an operation that was done.
type act struct {
	op         model.Op
	got        model.Result
	begun, end int // events of the disk before and after it
}

// nest does the acts of a case. It reports whether A has the moment.
func (c Nested) nest(run *drive) (before, a, b, after []act, there bool, where string, err error) {
	do := func(op model.Op) act {
		x := act{op: op, begun: run.disk.Len(), end: 1 << 62}
		x.got = run.Do(op)
		x.end = run.disk.Len()
		return x
	}
	for _, op := range c.Before {
		before = append(before, do(op))
	}
	s := &beside{at: []int{c.Moment}, run: func(int) {
		for _, op := range c.B {
			b = append(b, do(op))
		}
	}}
	run.disk.Watch(s.event)
	run.holders.watch(func(step string) { s.step("", step) })
	moments, err := s.during(func() { a = append(a, do(c.A)) })
	there, where = moments > 0, strings.Join(s.where, "")
	if err != nil {
		return nil, nil, nil, nil, there, where, err
	}
	run.disk.Watch(nil)
	run.holders.watch(nil)
	for _, op := range c.After {
		after = append(after, do(op))
	}
	return before, a, b, after, there, where, nil
}

// order is an order of all acts in which they could have come one after the other,
// and what would have been promised by it.
type order struct {
	acts []act
	h    *History
	m    *model.Tree

	until int // it does not count when the disk had so many events; 0: always
}

// reads is what each reading would get in some order.
type reads map[model.Op][][]byte

// follow does acts on the model; an error says which one has another result. What is
// read while something is written may be of before in one place, and of after in
// another.
func (c Nested) follow(acts []act, seen reads) (order, error) {
	m := model.New()
	for _, op := range c.Setup {
		m.Do(op)
	}
	o := order{acts: acts, h: NewHistory(m.Listing()), m: m}
	for _, x := range acts {
		file := m.FileOf(x.op)
		want := m.Do(x.op)
		if x.got.Errno != want.Errno || !bytes.Equal(x.got.Data, want.Data) && among(x.got.Data, seen[x.op]) != nil {
			return o, fmt.Errorf("%v: %v, want %v", x.op, x.got, want)
		}
		o.h.Add(x.op, want, file, m)
	}
	return o, nil
}

// at is how far the acts were when the disk had p events: all up to from were
// acknowledged, and all up to k, or had an effect that one showed which was; those up
// to last had begun. The history promises nothing for what was not acknowledged.
func (o order) at(p int) (h *History, from, k, last int) {
	h = &History{states: o.h.states, gone: o.h.gone, notes: slices.Clone(o.h.notes), failed: o.h.failed}
	for i, x := range o.acts {
		if x.end <= p {
			if k = i + 1; from == i {
				from = k
			}
		} else {
			h.notes[i+1] = note{changed: h.notes[i+1].changed}
		}
		if x.begun <= p {
			last = i + 1
		}
	}
	for i := k + 1; i <= last; i++ { // see safeContent
		h.notes[i] = o.h.notes[i]
	}
	return h, from, k, max(k, last)
}

// RunNested does a case, and crashes at every moment from the beginning of A on, or,
// if it is to be quick, at some of them. It reports whether A has the case's moment.
func (x *Tester) RunNested(from *Prepared, c Nested, quick bool) (there bool, err error) {
	x.Cases++
	run, err := from.open(c.Passthrough)
	if err != nil {
		return false, err
	}
	if c.Full {
		run.Tree.SetRoom(fullRoom{})
	}
	before, a, b, after, there, where, err := c.nest(run)
	if !there || err != nil {
		if err == nil {
			run.close()
		}
		return there, err
	}
	n := run.disk.Len()
	orders, err := c.orders(run, before, a, b, after)
	run.close()
	if err == nil {
		err = x.closed(run, orders)
	}
	if err != nil {
		return true, fmt.Errorf("%s: %w", where, err)
	}
	// What A does in two steps is not there as long as it has not ended.
	without, err := c.follow(slices.Concat(before, b), nil)
	if without.until = a[0].end; err == nil {
		orders = append(orders, without)
	}
	crash := x.crashNested
	if quick {
		crash = x.crashSome
	}
	if err := crash(run, orders, a[0].begun, n); err != nil {
		return true, fmt.Errorf("%s: %w", where, err)
	}
	return true, nil
}

// reads tells what is read in each order of a and b.
func (c Nested) reads(before, a, b []act) reads {
	out := reads{}
	for i := range len(b) + 1 {
		m := model.New()
		for _, op := range c.Setup {
			m.Do(op)
		}
		for _, x := range slices.Concat(before, b[:i], a, b[i:]) {
			if r := m.Do(x.op); x.op.Kind == model.Read || x.op.Kind == model.ReadFrom || x.op.Kind == model.LoadMapped {
				out[x.op] = append(out[x.op], r.Data)
			}
		}
	}
	return out
}

// torn says that what was published is what no file ever held.
func (o order) torn(published [][]byte) error {
	for _, b := range published {
		was := func(l model.Listing) bool {
			for _, e := range l {
				if e.IsFile() && bytes.Equal(e.Content, b) {
					return true
				}
			}
			return false
		}
		if !slices.ContainsFunc(o.h.states, was) {
			return fmt.Errorf("published %d bytes, which no file ever held", len(b))
		}
	}
	return nil
}

// closed looks at a drive that was closed in order.
func (x *Tester) closed(run *drive, orders []order) error {
	err := look(run.disk.Kill(run.disk.Len()), run, x.Renew, func(got model.Listing) error {
		return model.Differ(got, orders[0].m.Listing())
	})
	if err != nil {
		return fmt.Errorf("closed in order: %w", err)
	}
	return nil
}

// fullRoom has no room for what is fetched.
type fullRoom struct{}

func (fullRoom) Write(context.Context, int64) error { return nil }
func (fullRoom) Keep(int64) bool                    { return false }
func (fullRoom) PassThrough() bool                  { return true }
func (fullRoom) Again(context.Context, int64, func() error) error {
	return tree.ErrNoSpace
}

// orders are those that explain all results, and what is there in the end.
func (c Nested) orders(run *drive, before, a, b, after []act) (out []order, err error) {
	l, err := run.List()
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if err := run.holders.check(&run.Drive, l); err != nil {
		return nil, err
	}
	var errs []error
	seen := c.reads(before, a, b)
	for i := range len(b) + 1 {
		acts := slices.Concat(before, b[:i], a, b[i:], after)
		o, err := c.follow(acts, seen)
		if err == nil {
			err = model.Differ(l, o.m.Listing())
		}
		if err == nil {
			err = o.torn(run.holders.published)
		}
		if err == nil {
			out = append(out, o)
		} else {
			errs = append(errs, fmt.Errorf("with %d before: %w", i, err))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("in no order: %w", errors.Join(errs...))
	}
	return out, nil
}

// crashNested crashes at all moments from begin to n.
func (x *Tester) crashNested(run *drive, orders []order, begin, n int) error {
	stages := map[int]bool{}
	for _, a := range orders[0].acts {
		stages[a.begun], stages[a.end] = true, true
	}
	x.seen = map[uint64]bool{}
	for p := begin; p <= n; p++ {
		if stages[p] {
			x.seen = map[uint64]bool{}
		}
		x.Moments++
		if err := x.killNested(run, orders, p); err != nil {
			return err
		}
		for _, loss := range run.disk.Losses(p, x.Rand, x.Random) {
			if err := x.loseNested(run, orders, p, loss); err != nil {
				return err
			}
		}
	}
	return nil
}

// crashSome crashes at a few moments, in one way each.
func (x *Tester) crashSome(run *drive, orders []order, begin, n int) error {
	at := func() int {
		x.Moments++
		return begin + x.Rand.IntN(n-begin+1)
	}
	x.seen = map[uint64]bool{}
	if err := x.killNested(run, orders, at()); err != nil {
		return err
	}
	for _, p := range []int{at(), at(), n} {
		x.seen = map[uint64]bool{}
		all := run.disk.Losses(p, x.Rand, 2)
		if err := x.loseNested(run, orders, p, all[x.Rand.IntN(len(all))]); err != nil {
			return err
		}
	}
	return nil
}

func (x *Tester) killNested(run *drive, orders []order, p int) error {
	if err := x.try(run.disk.Kill(p), run, 1, anyOf(orders, p, killedAt)); err != nil {
		return fmt.Errorf("killed after %s: %w", lastOf(run.disk, p), err)
	}
	return nil
}

func (x *Tester) loseNested(run *drive, orders []order, p int, loss memdisk.Loss) error {
	if err := x.try(run.disk.PowerLoss(p, loss), run, 0, anyOf(orders, p, lostAt)); err != nil {
		return fmt.Errorf("power lost after %s, losing %s: %w", lastOf(run.disk, p), loss.Name, err)
	}
	return nil
}

func killedAt(h *History, got model.Listing, from, k, last int) error {
	return h.killed(got, from, k, last)
}

func lostAt(h *History, got model.Listing, from, k, last int) error {
	_, err := h.moment(got, from, k, last)
	return err
}

// anyOf judges a tree by the order that allows most.
func anyOf(orders []order, p int, judge func(h *History, got model.Listing, from, k, last int) error) func(model.Listing) error {
	return func(got model.Listing) error {
		var errs []error
		for _, o := range orders {
			if o.until > 0 && p >= o.until {
				continue
			}
			h, from, k, last := o.at(p)
			err := judge(h, got, from, k, last)
			if err == nil {
				return nil
			}
			errs = append(errs, fmt.Errorf("%d to %d of %v: %w", k, last, o, err))
		}
		return errors.Join(errs...)
	}
}

func (o order) String() string {
	var ops []model.Op
	for _, a := range o.acts {
		ops = append(ops, a.op)
	}
	return fmt.Sprint(ops)
}

// lastOf tells what a crash came after.
func lastOf(d *memdisk.Disk, p int) string {
	if p == 0 {
		return "nothing"
	}
	return fmt.Sprintf("event %d, %v", p, d.Log()[p-1])
}

// Prepared is a drive that cases begin with.
type Prepared struct {
	disk    *memdisk.Disk
	holders *holders
}

// Prepare does what is there before cases.
func Prepare(setup []model.Op) (*Prepared, error) {
	run, err := (&Tester{}).prepare(memdisk.New(), Case{Setup: setup})
	if err != nil {
		return nil, err
	}
	run.close()
	return &Prepared{run.disk.Kill(run.disk.Len()), run.holders}, nil
}

func (p *Prepared) open(passthrough bool) (*drive, error) {
	return open(p.disk.Kill(p.disk.Len()), p.holders.clone(), passthrough)
}
