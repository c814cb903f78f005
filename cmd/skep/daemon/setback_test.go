package daemon

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"skep/cache/tree"
	"skep/chunker/devices"
	"skep/cmd/skep/control"
	"skep/cmd/skep/home"
)

// fileSize is large enough for a file to be in packs of its own, beside which those of
// names count little.
const fileSize = 512 << 10

// write makes a commit of each of some files.
func (s *swarmOfEvenings) write(d *opened, names ...string) {
	s.t.Helper()
	for i, name := range names {
		content := make([]byte, fileSize)
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(len(name))}).Read(content)
		s.must(d.put(s.t.Context(), "dir", name, content))
		s.must(d.engine.Sync(s.t.Context()))
	}
}

// remove makes a commit without a file.
func (s *swarmOfEvenings) remove(d *opened, name string) {
	s.t.Helper()
	in, err := d.tree.Find(s.t.Context(), "dir")
	s.must(err)
	s.must(d.tree.Unlink(s.t.Context(), in.Ino, name))
}

// stored is how many bytes all peers hold.
func (s *swarmOfEvenings) stored() (n int64) {
	for _, p := range s.Peers {
		_, used := p.Store.Room()
		n += used
	}
	return n
}

// A home that was set back to an earlier state, if only by one commit, publishes
// nothing any more, says so, and deletes nothing; the words bring the newest state that
// was synced.
func TestHomeThatWasSetBack(t *testing.T) {
	if testing.Short() {
		t.Skip("a swarm that is served for hours")
	}
	served(t, func(t *testing.T, s *swarmOfEvenings, h home.Dir, d *opened) {
		s.must(d.publishRecovery(t.Context()))
		s.write(d, "first", "second")
		d.stop()
		image := t.TempDir()
		s.must(os.CopyFS(image, os.DirFS(string(h))))
		d = s.openAgain(h)
		s.write(d, "third")
		newest := d.engine.Progress().Number
		d.stop()
		s.must(os.RemoveAll(string(h)))
		s.must(os.CopyFS(string(h), os.DirFS(image)))

		d = s.openAgain(h)
		defer d.stop()
		s.remove(d, "first")
		s.must(d.put(t.Context(), "dir", "here alone", []byte("x")))
		before := s.stored()
		var back *setBackError
		daemon := &Daemon{home: h, net: d.net, drive: d.drive, log: discard()}
		daemon.repair = newRepair(daemon)
		if _, err := daemon.sync(t.Context(), control.Sync{}); !errors.As(err, &back) || !strings.Contains(err.Error(), "skep recover") {
			t.Errorf("sync says %v", err)
		}
		<-time.After(15 * time.Minute)
		var status control.Status
		d.othersStatus(&status)
		if status.SetBack == "" || s.stored() < before {
			t.Errorf("status says %q, %d of %d bytes are held", status.SetBack, s.stored(), before)
		}
		if d.engine.Sync(t.Context()) == nil || d.isAlone(time.Time{}) {
			t.Error("it went on")
		}
		r := s.recovered(s.words, 0)
		defer r.stop()
		got := map[string][]byte{}
		s.must(r.read(t.Context(), tree.Root, "", got))
		if n := r.engine.Progress().Number; n != newest || len(got) != 3 || len(got["dir/third"]) != fileSize {
			t.Errorf("the words lead to commit %d of %d, with %d files", n, newest, len(got))
		}
	})
}

// What was deleted is given up at the peers when it is known that nobody else may need
// it, also if nothing else happens; not while another device may, which was recovered
// and is there, though it has made no commit.
func TestDeletedIsGivenUpByWhoIsAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("a swarm that is served for hours")
	}
	served(t, func(t *testing.T, s *swarmOfEvenings, h home.Dir, d *opened) {
		defer func() { d.stop() }()
		s.must(d.publishRecovery(t.Context()))
		s.write(d, "one", "other")
		<-time.After(15 * time.Minute)
		full := s.stored()
		s.remove(d, "one")
		s.must(d.engine.Sync(t.Context()))
		if s.stored() < full {
			t.Error("it was given up at once")
		}
		<-time.After(15 * time.Minute)
		left := s.stored()
		if left > full-fileSize*3/2 {
			t.Errorf("%d of %d bytes are held by a device that is alone: %v", left, full, d.outlook.Load().err)
		}
		r := s.recovered(s.words, 0)
		defer r.stop()
		s.remove(d, "other")
		s.must(d.engine.Sync(t.Context()))
		<-time.After(15 * time.Minute)
		var others *devices.OthersError
		if now := s.stored(); now < left || !errors.As(d.outlook.Load().err, &others) {
			t.Errorf("%d of %d bytes are held, though another device may need them: %v", now, left, d.outlook.Load().err)
		}
	})
}

// A device whose commits no recovery takes, as another one made more, is told by sync,
// by status, and by the status of what it wrote; not any more when it has made as many.
func TestDeviceThatIsOvertaken(t *testing.T) {
	if testing.Short() {
		t.Skip("a swarm that is served for hours")
	}
	served(t, func(t *testing.T, s *swarmOfEvenings, h home.Dir, d *opened) {
		defer d.stop()
		s.must(d.publishRecovery(t.Context()))
		s.write(d, "first")
		r := s.recovered(s.words, 0)
		defer r.stop()
		s.write(r, "one", "two", "three")
		s.must(d.put(t.Context(), "dir", "here", make([]byte, fileSize)))
		says := func(d *opened, name, state string, overtaken bool) {
			t.Helper()
			daemon := &Daemon{drive: d.drive, net: d.net, log: discard()}
			daemon.repair = newRepair(daemon)
			_, err := daemon.sync(t.Context(), control.Sync{})
			if _, is := errors.AsType[*overtakenError](err); is != overtaken || !is && err != nil {
				t.Errorf("sync says %v", err)
			}
			var status control.Status
			d.othersStatus(&status)
			if (status.Overtaken != "") != overtaken {
				t.Errorf("status says %q", status.Overtaken)
			}
			if p := daemon.pathStatus(t.Context(), "dir/"+name); p.State != state {
				t.Errorf("%s is %q (%s), not %q", name, p.State, p.Error, state)
			}
		}
		says(d, "here", "out", true)
		says(r, "one", "safe", false)
		third := s.recovered(s.words, 0)
		defer third.stop()
		if _, err := third.tree.Find(t.Context(), "dir/here"); err == nil {
			t.Error("the words bring it back")
		}
		s.write(d, "four", "five", "six")
		says(d, "here", "safe", false)
		says(r, "one", "out", true)
	})
}
