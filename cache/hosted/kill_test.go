package hosted_test

import (
	"bufio"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"skep/test/seed"
)

// A process that puts shards, records and leases, and deletes, is killed at
// moments picked at random, again and again, on one disk. What it said to be
// done is done.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hosted")
	random := rand.New(rand.NewPCG(seed.For(t), 0))
	k := newKnowledge()
	var from [workers]int
	for round := range often(12) {
		from = liveUntilKilled(t, dir, from, 1+random.IntN(80), k)
		lookAfter(t, k, dir)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// liveUntilKilled runs a child until it has written so many marks, kills it,
// takes all marks into what is known, and returns where the workers go on.
func liveUntilKilled(t *testing.T, dir string, from [workers]int, marks int, k *knowledge) [workers]int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, errs := child(t, dir, "/proc/self/fd/3", from, 1<<20)
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	seen := 0
	for lines := bufio.NewScanner(r); lines.Scan(); seen++ {
		if seen == marks {
			_ = cmd.Process.Kill()
		}
		m, ok := parseMark(lines.Text())
		if !ok {
			continue // cut short
		}
		k.note(m)
		from[m.step.worker] = m.step.n + 1
	}
	_ = cmd.Wait()
	if seen < marks {
		t.Fatalf("the child ended after %d marks: %s", seen, errs)
	}
	return from
}
