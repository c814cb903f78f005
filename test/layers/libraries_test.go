package layers

import (
	"regexp"
	"strings"
	"testing"
)

var (
	directRequire = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/?\S*) (v\S+)$`)
	libraryRow    = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\S+) \\| ([^|]+) \\|")
)

// TestLibrariesPage compares docs/libraries.md with go.mod.
func TestLibrariesPage(t *testing.T) {
	wanted := map[string]string{}
	for _, m := range directRequire.FindAllStringSubmatch(read(t, "go.mod"), -1) {
		wanted[m[1]] = m[2]
	}
	if len(wanted) < 10 {
		t.Fatalf("only %d direct requirements were found in go.mod", len(wanted))
	}
	page := libraryRow.FindAllStringSubmatch(read(t, "docs/libraries.md"), -1)
	named := map[string]bool{}
	for _, row := range page {
		module, version, purpose := row[1], row[2], strings.TrimSpace(row[3])
		switch want, ok := wanted[module]; {
		case !ok:
			t.Errorf("docs/libraries.md names %s, which go.mod does not require directly", module)
		case version != want:
			t.Errorf("docs/libraries.md says %s %s, go.mod %s", module, version, want)
		case purpose == "":
			t.Errorf("docs/libraries.md does not say what %s is for", module)
		case named[module]:
			t.Errorf("docs/libraries.md names %s twice", module)
		}
		named[module] = true
	}
	for module := range wanted {
		if !named[module] {
			t.Errorf("docs/libraries.md does not name %s", module)
		}
	}
}
