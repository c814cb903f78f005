package say

import (
	"testing"
	"time"
)

func TestAmounts(t *testing.T) {
	for _, tt := range [][2]string{
		{Count(0, "pack"), "0 packs"},
		{Count(1, "pack"), "1 pack"},
		{Count(int64(2), "directory"), "2 directories"},
		{Count(1, "directory"), "1 directory"},
		{If(1, "has", "have"), "has"},
		{If(0, "has", "have"), "have"},
		{Times(1), "once"},
		{Times(3), "3 times"},
		{Bytes(1536), "1.5 KiB"},
		{Bytes(-1), "0 B"},
		{Path("/a drive/ä, 漢.txt"), "/a drive/ä, 漢.txt"},
		{Path("a\nb\x1b[2J"), `"a\nb\x1b[2J"`},
		{Path("\xff"), `"\xff"`},
	} {
		if tt[0] != tt[1] {
			t.Errorf("%q, want %q", tt[0], tt[1])
		}
	}
}

func TestAbout(t *testing.T) {
	for want, d := range map[string]time.Duration{"1 second": 300 * time.Millisecond, "59 seconds": 59 * time.Second,
		"1 minute": time.Minute, "2 minutes": 61 * time.Second, "10 minutes": 10 * time.Minute} {
		if got := About(d); got != want {
			t.Errorf("%v is about %q, not %q", d, got, want)
		}
	}
}
