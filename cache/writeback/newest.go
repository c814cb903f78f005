package writeback

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/state"
	"skep/chunker/commit"
	"skep/chunker/link"
)

// Where commits lie in the tables.
var (
	// commitKey is the newest one.
	commitKey = []byte("hcommit")
	// intendedKey is the one that is to be the newest: complete and with
	// holders, its head perhaps with some keepers already. Whatever comes
	// between, it is published before another one is, and nothing that it
	// needs is given up before.
	intendedKey = []byte("hintended")
)

// LoadCommit reads the newest commit from the tables.
func LoadCommit(st state.Reader) (c commit.Commit, at commit.Locator, ok bool, err error) {
	p, ok, err := load(st, commitKey)
	return p.commit, p.head.Commit, ok, err
}

// LoadHead reads the head of the newest commit from the tables, as the device
// that made the commit published it.
func LoadHead(st state.Reader) (h commit.Head, ok bool, err error) {
	p, ok, err := load(st, commitKey)
	return p.head, ok, err
}

// LoadIntended reads the head of the commit that is to be the newest, if there is
// one: keepers may have it.
func LoadIntended(st state.Reader) (h commit.Head, ok bool, err error) {
	p, ok, err := load(st, intendedKey)
	return p.head, ok, err
}

// SaveCommit makes a commit the newest one in the tables.
func SaveCommit(b *state.Batch, h commit.Head, signed []byte) { save(b, commitKey, h, signed) }

// Roots are the commits that count a reference: the newest one, and the one that
// is to be.
func Roots(st state.Reader) ([]link.Link, error) {
	var out []link.Link
	for _, key := range [][]byte{commitKey, intendedKey} {
		p, ok, err := load(st, key)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, p.head.Commit.Link)
		}
	}
	return out, nil
}

// complete is a commit that lies with holders.
type complete struct {
	head   commit.Head
	signed []byte
	commit commit.Commit
	// sent are its own packs, when it was made just now: no segment of its index has
	// what lies in them.
	sent []packID
}

func save(b *state.Batch, key []byte, h commit.Head, signed []byte) {
	head := h.Encode()
	v := append([]byte{byte(len(head) >> 8), byte(len(head))}, head...)
	b.Put(key, append(v, signed...))
}

func load(st state.Reader, key []byte) (p complete, ok bool, err error) {
	b, ok, err := st.Get(key)
	if err != nil || !ok {
		return p, false, err
	}
	if p.head, p.signed, err = splitCommit(b); err != nil {
		return p, false, err
	}
	p.commit, err = commit.Parse(p.signed)
	return p, err == nil, err
}

func splitCommit(b []byte) (commit.Head, []byte, error) {
	if len(b) < 2 {
		return commit.Head{}, nil, errors.New("malformed commit row")
	}
	n := int(b[0])<<8 | int(b[1])
	if len(b) < 2+n {
		return commit.Head{}, nil, errors.New("malformed commit row")
	}
	h, err := commit.ParseHead(b[2 : 2+n])
	return h, b[2+n:], err
}

// intend writes down, so that it survives power loss, that a commit is to be the
// newest one. From now on it counts a reference.
func (e *Engine) intend(p complete) error {
	e.isSettled = false
	err := e.table.Turn(p.head.Commit.Link, link.Link{}, func(b *state.Batch) error {
		save(b, intendedKey, p.head, p.signed)
		return nil
	})
	if err != nil {
		return err
	}
	return e.cfg.State.Sync()
}

// superseded is the commit that was the newest before, and what it refers to.
type superseded struct {
	commit link.Link
	refs   []link.Link
}

// publishIntended publishes the intended commit, if there is one, and makes it
// the newest one here, in one batch with what that means for the account. moved
// are the moves of slots that it says.
func (e *Engine) publishIntended(ctx context.Context, moved uint64) error {
	p, ok, err := load(e.cfg.State, intendedKey)
	if err != nil || !ok {
		return err
	}
	if err := e.cfg.Publish(ctx, p.head); err != nil {
		return fmt.Errorf("publish the head: %w", err)
	}
	old, oldAt := e.reader.Commit()
	before := oldAt.Link
	if before == p.head.Commit.Link {
		before = link.Link{}
	}
	if old != nil && !before.IsZero() {
		refs, err := old.Refs()
		if err != nil {
			return err
		}
		e.before = superseded{before, refs}
	}
	err = e.table.Turn(link.Link{}, before, func(b *state.Batch) error {
		SaveCommit(b, p.head, p.signed)
		b.Delete(intendedKey)
		return e.table.Told(b, moved)
	})
	if err != nil {
		return err
	}
	e.reader.SetCommit(&p.commit, p.head.Commit)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.published = e.now()
	e.turns++
	e.progress.Number, e.progress.LastDone = p.commit.Number, e.published
	return nil
}
