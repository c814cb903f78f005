package storetest

import (
	"testing"

	"skep/net/holder"
)

func TestMemory(t *testing.T) {
	Test(t, func(*testing.T) holder.Store { return NewMemory(64 << 20) })
}
