package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"skep/test/model"
	"skep/test/seed"
)

// TestModelMounted does long sequences of operations on a mount, several at the
// same time in directories of their own, and on a model of each: each result
// must be alike, and now and then all that can be seen. In the middle commits
// are made, content is let go of and comes back, the journal is cut, the drive
// is mounted again, and the server is killed.
func TestModelMounted(t *testing.T) {
	needsFUSE(t)
	const users, round = 2, 150
	rounds := soaked(users*round*2) / (users * round)
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			from := seed.For(t)
			d, err := NewServed(t.TempDir(), passthrough)
			if err != nil {
				t.Fatal(err)
			}
			defer d.End()
			var all []*user
			for i := range users {
				u, err := newUser(d, fmt.Sprint("user", i), rand.New(rand.NewPCG(from, uint64(i))))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, u)
			}
			r := rand.New(rand.NewPCG(from, 100))
			for i := range rounds {
				together(t, all, func(u *user) error { return u.Steps(round, 100) })
				if err := again(d, all, r.IntN(2) == 0); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				together(t, all, func(u *user) error { return u.Compare() })
			}
		})
	}
}

// user is one who uses a directory, beside a model of it.
type user struct {
	*model.Beside
	name  string
	mount *model.Mount
}

func newUser(d *Served, name string, r *rand.Rand) (*user, error) {
	m := d.part(name)
	return &user{&model.Beside{Target: m, Model: model.New(), Generator: generator(r)}, name, m}, os.Mkdir(m.Root, 0o755)
}

// together has all users do something at the same time.
func together(t *testing.T, all []*user, do func(*user) error) {
	t.Helper()
	var wg sync.WaitGroup
	for _, u := range all {
		wg.Go(func() {
			if err := do(u); err != nil {
				t.Errorf("%s: %v", u.name, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// again ends the server, in order or not, and begins another one.
func again(d *Served, all []*user, inOrder bool) error {
	for _, u := range all {
		u.Model.CloseAll()
		u.mount.CloseAll()
	}
	if !inOrder {
		d.Kill()
	} else if err := d.Stop(); err != nil {
		return err
	}
	return d.Start()
}
