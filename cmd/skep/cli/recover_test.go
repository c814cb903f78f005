package cli

import (
	"bytes"
	"strings"
	"testing"

	"skep/cmd/skep/daemon"
)

// What may be missing after a recovery is told, also off a terminal.
func TestRecoveredIsTold(t *testing.T) {
	for says, found := range map[string]daemon.Recovered{
		"It begins empty":                    {Empty: true, Few: true},
		"what was saved last may be missing": {Few: true},
		"keepers could not be told":          {Unknown: true},
		"":                                   {},
	} {
		var out, errOut bytes.Buffer
		a := &app{out: &out, errOut: &errOut, homeDir: "/some/home"}
		a.tellRecovered(found)
		if got := errOut.String(); !strings.Contains(got, says) || says == "" && got != "" || strings.Count(got, "\n") > 1 {
			t.Errorf("of %+v is told %q", found, got)
		}
		if !strings.Contains(out.String(), "skep --home /some/home mount") {
			t.Errorf("how to mount is not told: %q", out.String())
		}
	}
}
