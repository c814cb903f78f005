package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"skep/test/memdisk"
	"skep/test/model"
	"skep/test/seed"
)

// soakEnv is how many times as long the soak runs.
const soakEnv = "SKEP_SOAK"

// TestModel does one long sequence of operations on a tree and on the model:
// each result must be alike, and now and then all that can be seen. In the
// middle commits are made, content is let go of and comes back, the journal is
// cut, and the process ends, in order or killed.
func TestModel(t *testing.T) {
	n := max(6000, soaked(1500)) // fewer do not show a truncation that is lost
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			s := newSide(t, seed.For(t), passthrough)
			for i := range n {
				if err := s.step(i); err != nil {
					t.Fatalf("operation %d: %v\nbefore it: %v", i, err, s.last)
				}
			}
			s.run.close()
		})
	}
}

// soaked is how many operations are done in place of n.
func soaked(n int) int {
	if times, err := strconv.Atoi(os.Getenv(soakEnv)); err == nil {
		n *= 100 * times
	}
	return n
}

// side is a drive beside its model.
type side struct {
	g    *model.Generator
	m    *model.Tree
	run  *drive
	last []model.Op
}

func newSide(t *testing.T, seed uint64, passthrough bool) *side {
	t.Helper()
	run, err := open(memdisk.New(), newHolders(), passthrough)
	if err != nil {
		t.Fatal(err)
	}
	g := generator(rand.New(rand.NewPCG(seed, 7)))
	g.Maintenance[model.Restart] = 150
	return &side{m: model.New(), run: run, g: g}
}

// generator makes operations for the model tests.
func generator(r *rand.Rand) *model.Generator {
	return &model.Generator{Rand: r,
		Dirs: []string{"", "a", "b", "a/c", "b/d", "a/c/e"}, Names: []string{"a", "b", "c", "d", "e", "f", "g"},
		Sizes: []int64{10, 600, 16384, 20000, 70000, 1 << 20, 1<<20 + 300000}, Handles: 6,
		Maintenance: map[model.Kind]int{model.Commit: 40, model.Evict: 15, model.Forget: 200}}
}

func (s *side) step(i int) error {
	op := s.g.Next()
	s.last = append(s.last, op)
	s.last = s.last[max(0, len(s.last)-12):]
	if op.Kind == model.Restart {
		return s.restart(s.g.Rand.IntN(2) == 0)
	}
	want, got := s.m.Do(op), s.run.Do(op)
	if got.Errno != want.Errno || !bytes.Equal(got.Data, want.Data) {
		return fmt.Errorf("%v: %v, want %v", op, got, want)
	}
	if i%25 != 0 {
		return nil
	}
	return s.compare()
}

func (s *side) compare() error {
	l, err := s.run.List()
	if err != nil {
		return err
	}
	if err := model.Differ(l, s.m.Listing()); err != nil {
		return err
	}
	if err := s.run.holders.check(&s.run.Drive, l); err != nil {
		return err
	}
	s.run.disk.Settle()
	return s.run.holders.forget(&s.run.Drive, l)
}

// restart ends the process, in order or not, and begins another on the same
// disk.
func (s *side) restart(inOrder bool) error {
	was := s.run
	if inOrder {
		was.close()
	}
	s.m.CloseAll()
	d := was.disk.Kill(was.disk.Len())
	var err error
	if s.run, err = open(d, was.holders, was.passthrough); err != nil {
		return err
	}
	if !inOrder {
		was.close() // on the disk that is not used any more
	}
	if err := s.run.Tree.Sweep(ctx); err != nil {
		return err
	}
	return s.compare()
}
