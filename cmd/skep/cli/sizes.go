package cli

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"skep/cache/space"
)

// sizeFlag is a number of bytes on the command line, such as 10G or 500MiB.
type sizeFlag int64

func (s *sizeFlag) String() string { return humanize.IBytes(uint64(*s)) }

// Set parses a size. A bare letter stands for the power of 1024, as in du.
func (s *sizeFlag) Set(v string) error {
	u := strings.ToUpper(strings.TrimSpace(v))
	if n := len(u); n > 0 && strings.ContainsRune("KMGTP", rune(u[n-1])) {
		u += "IB"
	}
	n, err := humanize.ParseBytes(u)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size; write it as 10G or 500M", v)
	}
	*s = sizeFlag(n)
	return nil
}

// Type names the flag's type in help texts.
func (s *sizeFlag) Type() string { return "SIZE" }

// cacheFlag is the limit of a drive's cache on the command line.
type cacheFlag struct{ limit int64 }

func (c *cacheFlag) String() string {
	if c.limit == 0 {
		return "auto"
	}
	return humanize.IBytes(uint64(c.limit))
}

// Set parses a size, or "auto".
func (c *cacheFlag) Set(v string) error {
	if v == "auto" {
		c.limit = 0
		return nil
	}
	var s sizeFlag
	if err := s.Set(v); err != nil {
		return fmt.Errorf("%w, or auto for a share of the disk", err)
	}
	if s < space.MinLimit {
		return fmt.Errorf("a cache needs at least %s", humanize.IBytes(space.MinLimit))
	}
	c.limit = int64(s)
	return nil
}

// Type names the flag's type in help texts.
func (c *cacheFlag) Type() string { return "SIZE" }

const cacheUsage = "how much of this disk the drive may take; auto is half of what others leave"
