package writeback

import (
	"encoding/binary"
	"testing"
	"time"

	"skep/chunker/group"
)

// Leases that were made on one day are not renewed on one day.
func TestRenewingIsSpreadOut(t *testing.T) {
	const groups = 1000
	made := time.Unix(1_800_000_000, 0)
	perDay := map[int]int{}
	for i := range uint64(groups) {
		g := group.Group{Until: made.Add(leaseTime).Unix()}
		binary.BigEndian.PutUint64(g.ID[:], i*0x9e3779b97f4a7c15) // as evenly as hashes are
		for day := 0; ; day++ {
			if leaseDue(g, made.Add(time.Duration(day)*24*time.Hour)) {
				perDay[day]++
				break
			}
		}
	}
	for day, n := range perDay {
		if day < 24 || day > 32 || n > groups/7 {
			t.Errorf("%d of %d leases are renewed after %d days", n, groups, day)
		}
	}
}
