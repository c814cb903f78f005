package writeback

import (
	"errors"

	"skep/cache/state"
	"skep/chunker/commit"
)

// commitKey is where the newest commit and its locator lie in the tables.
var commitKey = []byte("hcommit")

// LoadCommit reads the newest commit from the tables.
func LoadCommit(st state.Reader) (c commit.Commit, at commit.Locator, ok bool, err error) {
	b, ok, err := st.Get(commitKey)
	if err != nil || !ok {
		return c, at, false, err
	}
	head, body, err := splitCommit(b)
	if err != nil {
		return c, at, false, err
	}
	if c, err = commit.Parse(body); err != nil {
		return c, at, false, err
	}
	return c, head.Commit, true, nil
}

// SaveCommit makes a commit the newest one in the tables.
func SaveCommit(b *state.Batch, h commit.Head, signed []byte) {
	head := h.Encode()
	v := append([]byte{byte(len(head) >> 8), byte(len(head))}, head...)
	b.Put(commitKey, append(v, signed...))
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
