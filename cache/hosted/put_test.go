package hosted

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/test/storetest"
)

// flushing reports whether somebody waits for the next flush to begin.
func (f *flusher) flushing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next != nil
}

// A pack may die, and a group may be dropped, while the folder of a shard that has its
// name already is flushed: it is not taken in.
func TestPackDiesAsItsShardArrives(t *testing.T) {
	for name, c := range map[string]struct {
		ends func(s *Store, o *storetest.Owner) error
		want error
	}{
		"dead": {func(s *Store, o *storetest.Owner) error {
			l, word := o.Lease(5, storetest.Until, storetest.Dead(0))
			_, err := s.Admit(l, word, 1, group.PeerKey{})
			return err
		}, group.ErrInvalid},
		"dropped": {func(s *Store, o *storetest.Owner) error { return s.Drop(o.ID) }, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(dir, 64<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			o := storetest.NewOwner(1, 18, 2, 3)
			l, word := o.Lease(4, storetest.Until)
			if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
				t.Fatal(err)
			}
			h, _ := s.lookup(o.ID)
			slow := h.sync
			slow.turn.Lock()
			p, done := o.Pack(t, 0), make(chan error, 1)
			go func() { done <- s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])) }()
			for late := time.Now().Add(time.Minute); !slow.flushing(); time.Sleep(time.Millisecond) {
				if time.Now().After(late) {
					t.Fatal("the shard did not arrive")
				}
			}
			h.sync = &flusher{root: s.root, dir: h.dir} // what ends the pack waits for no flush
			if err := c.ends(s, o); err != nil {
				t.Fatal(err)
			}
			slow.turn.Unlock()
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("the shard was put: %v", err)
			}
			if g, _ := s.Holding(o.ID); g.Held.Has(0) {
				t.Error("it counts as held")
			}
			if files, _ := filepath.Glob(filepath.Join(dir, "groups", "*", "[0-9]*")); len(files) > 0 {
				t.Errorf("its file is left: %v", files)
			}
		})
	}
}
