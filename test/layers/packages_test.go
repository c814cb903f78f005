package layers

import (
	"regexp"
	"strings"
	"testing"
)

var (
	packageRow = regexp.MustCompile("(?m)^\\| `([a-z]+/[^`.]+)` \\| ([^|]+) \\|")
	testsRow   = regexp.MustCompile("(?m)^\\| `test/\\.\\.\\.` \\| ([^|]+) \\|")
	quoted     = regexp.MustCompile("`([a-z0-9]+)`")
)

// TestPackagesPage compares the table in docs/architecture.md with the packages that
// there are: one row for each, and one that names those below test.
func TestPackagesPage(t *testing.T) {
	page := read(t, "docs/architecture.md")
	named := map[string]bool{}
	for _, row := range packageRow.FindAllStringSubmatch(page, -1) {
		if named[row[1]] {
			t.Errorf("docs/architecture.md names %s twice", row[1])
		}
		named[row[1]] = true
	}
	tests := testsRow.FindStringSubmatch(page)
	if tests == nil {
		t.Fatal("docs/architecture.md has no row of the packages below test")
	}
	for _, m := range quoted.FindAllStringSubmatch(tests[1], -1) {
		named["test/"+m[1]] = true
	}
	there := map[string]bool{}
	for _, f := range source(t) {
		pkg := f.pkg
		if in, below, ok := strings.Cut(pkg, "/"); ok && in == "test" {
			name, _, _ := strings.Cut(below, "/")
			pkg = "test/" + name
		} else if !ok {
			continue // a layer, which has its own table
		}
		there[pkg] = true
	}
	for pkg := range there {
		if !named[pkg] {
			t.Errorf("docs/architecture.md does not name %s", pkg)
		}
	}
	for pkg := range named {
		if !there[pkg] {
			t.Errorf("docs/architecture.md names %s, which there is not", pkg)
		}
	}
}
