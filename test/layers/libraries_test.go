package layers

import (
	"regexp"
	"strings"
	"testing"
)

var (
	requirement = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+) (v\S+)( // indirect)?$`)
	libraryRow  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\S+) \\| ([^|]+) \\|")
)

// TestLibrariesPage compares docs/libraries.md with go.mod.
func TestLibrariesPage(t *testing.T) {
	versions, direct := map[string]string{}, map[string]bool{}
	for _, m := range requirement.FindAllStringSubmatch(read(t, "go.mod"), -1) {
		versions[m[1]] = m[2]
		if m[3] == "" {
			direct[m[1]] = true
		}
	}
	if len(direct) < 10 {
		t.Fatalf("only %d direct requirements were found in go.mod", len(direct))
	}
	page := libraryRow.FindAllStringSubmatch(read(t, "docs/libraries.md"), -1)
	named := map[string]bool{}
	for _, row := range page {
		module, version, purpose := row[1], row[2], strings.TrimSpace(row[3])
		switch want, ok := versions[module]; {
		case !ok:
			t.Errorf("docs/libraries.md names %s, which go.mod does not require", module)
		case version != want:
			t.Errorf("docs/libraries.md says %s %s, go.mod %s", module, version, want)
		case purpose == "":
			t.Errorf("docs/libraries.md does not say what %s is for", module)
		case named[module]:
			t.Errorf("docs/libraries.md names %s twice", module)
		}
		named[module] = true
	}
	for module := range direct {
		if !named[module] {
			t.Errorf("docs/libraries.md does not name %s", module)
		}
	}
}
