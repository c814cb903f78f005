package daemon

import (
	"crypto/ed25519"
	"testing"

	"skep/cache/state"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
)

// turning are tables in which others turn from one state to another after so many reads.
type turning struct {
	state.Reader
	before, after map[string][]byte
	reads         int
}

func (r *turning) Get(key []byte) ([]byte, bool, error) {
	rows := r.before
	if r.reads--; r.reads < 0 {
		rows = r.after
	}
	v, ok := rows[string(key)]
	return v, ok, nil
}

// Whenever an intended commit becomes the newest while they are read, the last one that
// keepers may have is among those that are known.
func TestCommitsWhileOneTurns(t *testing.T) {
	device := secret.Key{1}.Signer()
	self := group.PeerKey(device.Public().(ed25519.PublicKey))
	row := func(number uint64) []byte {
		c := commit.Commit{Number: number, Root: []byte{1}}
		h := commit.Head{Device: self, Number: number, Commit: commit.Locator{Group: group.ID{1}, Class: 20, Coding: erasure.NewCoding(2, 3),
			Length: 100, Link: link.Link{Codec: link.CBOR, Hash: link.Hash{byte(number)}, Key: secret.Key{1}}}}
		var b state.Batch
		writeback.SaveCommit(&b, h, c.Sign(device))
		st, err := state.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if _, err := st.Apply(&b); err != nil {
			t.Fatal(err)
		}
		v, ok, err := st.Get([]byte("hcommit"))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return v
	}
	before := map[string][]byte{"hcommit": row(12), "hintended": row(13)}
	after := map[string][]byte{"hcommit": row(13)}
	for reads := range 5 {
		c, err := commitsIn(&turning{before: before, after: after, reads: reads})
		if err != nil {
			t.Fatal(err)
		}
		if last := c.ownLast(self); last.Number != 13 {
			t.Errorf("turned after %d reads: the last one is %d", reads, last.Number)
		}
	}
}
