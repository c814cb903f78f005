package writeback

import (
	"bytes"
	"testing"

	"skep/chunker/commit"
)

// FuzzCommitRow reads any bytes as the row of the newest commit.
func FuzzCommitRow(f *testing.F) {
	head := commit.Head{Number: 3, Time: 5}.Encode()
	f.Add(append(append([]byte{byte(len(head) >> 8), byte(len(head))}, head...), "signed"...))
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := splitCommit(b)
		if err == nil && (len(body) > len(b)-2 || !bytes.HasSuffix(b, body)) {
			t.Errorf("%d bytes behind head %d of %d", len(body), h.Number, len(b))
		}
	})
}
