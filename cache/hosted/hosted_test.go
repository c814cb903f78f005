package hosted_test

import (
	"testing"

	"skep/cache/hosted"
	"skep/net/holder"
	"skep/test/storetest"
)

func open(t *testing.T, dir string, offer int64) *hosted.Store {
	t.Helper()
	s, err := hosted.Open(dir, offer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Test(t, func(t *testing.T) holder.Store { return open(t, t.TempDir(), 64<<20) })
}
