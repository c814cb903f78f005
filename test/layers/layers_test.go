package layers

import (
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTopLevel(t *testing.T) {
	names, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		made := slices.Contains([]string{".test", ".out"}, filepath.Ext(n.Name())) // by the go command
		if !topLevel[n.Name()] && !made {
			t.Errorf("%s lies beside go.mod, where only the layers and a few files do", n.Name())
		}
	}
}

// TestImports checks every edge between packages of ours.
func TestImports(t *testing.T) {
	for _, f := range source(t) {
		for _, path := range f.imports {
			to, ok := own(path)
			if !ok {
				continue
			}
			if why := forbidden(f, to); why != "" {
				t.Errorf("%s imports %s: %s", f.name, to, why)
			}
		}
	}
}

// forbidden says why a file may not import a package of ours; "" if it may.
func forbidden(f file, to string) string {
	from, target := layerOf(f.pkg), layerOf(to)
	l, known := layers[from]
	switch {
	case !known:
		return from + " is not a layer"
	case target == "test" && !f.test && from != "test":
		return "what lies under test is for tests"
	case f.test && (target == "test" || target == from || from != "chunker"):
		return "" // a test may join layers, but those of the bottom stay there
	case from == target:
		return outOfOrder(from, f.pkg, to)
	case !slices.Contains(l.imports, target):
		return from + " " + l.why
	}
	return ""
}

// outOfOrder says why a package may not import another one of its layer.
func outOfOrder(layer, from, to string) string {
	if order[layer] == nil {
		return ""
	}
	i, j := position(layer, from), position(layer, to)
	switch {
	case i < 0:
		return from + " has no place in the order of its layer"
	case j < 0:
		return to + " has no place in the order of its layer"
	case j >= i:
		return "it does not come before it in the order of its layer"
	}
	return ""
}

// position is the line of a package in the order of its layer, -1 if it has
// none.
func position(layer, pkg string) int {
	name := strings.TrimPrefix(pkg, layer+"/")
	return slices.IndexFunc(order[layer], func(line []string) bool { return slices.Contains(line, name) })
}

// TestOrder finds packages without a place, and places without a package.
func TestOrder(t *testing.T) {
	there := map[string]bool{}
	for _, f := range source(t) {
		l := layerOf(f.pkg)
		if _, ok := layers[l]; !ok {
			t.Errorf("%s lies in no layer", f.name)
		}
		there[f.pkg] = true
		if order[l] != nil && f.pkg != l && position(l, f.pkg) < 0 {
			t.Errorf("%s has no place in the order of its layer", f.pkg)
		}
	}
	for l, lines := range order {
		for _, name := range slices.Concat(lines...) {
			if !there[l+"/"+name] {
				t.Errorf("there is no package %s/%s", l, name)
			}
		}
	}
}

// TestLibraries checks where libraries are used.
func TestLibraries(t *testing.T) {
	for _, f := range source(t) {
		if f.test {
			continue
		}
		for _, path := range f.imports {
			i := slices.IndexFunc(libraries, func(l library) bool {
				return path == l.prefix || strings.HasPrefix(path, strings.TrimSuffix(l.prefix, "/")+"/")
			})
			if i >= 0 && !under(f.pkg, libraries[i].in) {
				t.Errorf("%s imports %s: %s", f.name, path, libraries[i].why)
			}
			if what := machine[path]; what != "" && under(f.pkg, pure) {
				t.Errorf("%s imports %s, and its package is pure: it knows nothing of %s", f.name, path, what)
			}
		}
	}
}

// TestServerSeam finds packages that name go-fuse's request loop.
func TestServerSeam(t *testing.T) {
	const fuse = "github.com/hanwen/go-fuse/v2/fuse"
	for _, f := range source(t) {
		if f.test || f.pkg == "fs/mount" || layerOf(f.pkg) == "test" || !slices.Contains(f.imports, fuse) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "fuse" && server[s.Sel.Name] {
					t.Errorf("%s names fuse.%s: only fs/mount knows the request loop", f.name, s.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestPackageComments finds packages that do not say, in doc.go, what they are.
func TestPackageComments(t *testing.T) {
	said, all := map[string]bool{}, map[string]bool{}
	for _, f := range source(t) {
		if doc := f.syntax.Doc; doc != nil && !f.test {
			said[f.pkg] = filepath.Base(f.name) == "doc.go"
			want := "Package " + f.syntax.Name.Name + " "
			if f.syntax.Name.Name == "main" {
				want = "Command "
			}
			if !strings.HasPrefix(doc.Text(), want) {
				t.Errorf("%s: the package comment does not begin with %q", f.name, want)
			}
		}
		all[f.pkg] = true
	}
	for pkg := range all {
		if !said[pkg] {
			t.Errorf("%s has no package comment in doc.go", pkg)
		}
	}
}

// TestBareFolders keeps code out of the folders whose names shadow packages of
// the standard library.
func TestBareFolders(t *testing.T) {
	for _, f := range source(t) {
		if (f.pkg == "net" || f.pkg == "fs") && f.name != f.pkg+"/doc.go" {
			t.Errorf("%s: code of this layer lies in packages below it", f.name)
		}
	}
}

// TestForbidden makes sure that the tables say no where they should.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, no bool
	}{
		{"chunker/block", "cache/tree", false, true},
		{"chunker/block", "cache/tree", true, true},
		{"chunker/block", "test/storetest", true, false},
		{"chunker/secret", "chunker/link", false, true},
		{"chunker/link", "chunker/secret", false, false},
		{"cache/tree", "net/swarm", false, true},
		{"cache/tree", "cache/blocks", false, true},
		{"cache/hosted", "net/holder", true, false},
		{"net/host", "cache/hosted", false, true},
		{"net/client", "net/swarm", false, true},
		{"fs/adapter", "cache/tree", false, false},
		{"fs/adapter", "chunker/link", false, true},
		{"fs/adapter", "net/host", false, true},
		{"repair/health", "cache/blocks", false, true},
		{"repair/health", "repair/run", false, true},
		{"net/new", "net/host", false, true},
		{"cmd/skep/daemon", "repair/run", false, false},
		{"cmd/skep/daemon", "test/memswarm", false, true},
		{"other/thing", "chunker/link", false, true},
	} {
		if why := forbidden(file{pkg: c.from, test: c.test}, c.to); (why != "") != c.no {
			t.Errorf("%s → %s (in a test: %v): %q", c.from, c.to, c.test, why)
		}
	}
}
