package layers

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the folder of go.mod, seen from here.
var root = filepath.Join("..", "..")

// file is one Go file of ours, as far as it matters here.
type file struct {
	pkg     string // path of its package below the module, such as "net/wire"
	name    string // such as "net/wire/frame.go"
	test    bool
	syntax  *ast.File
	imports []string
}

// source reads all Go files. They are read here, and not asked of the go
// command, so that files with build tags count, and the test's result is not
// taken from its cache after one of them changed.
func source(t *testing.T) []file {
	t.Helper()
	var out []file
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "drive") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		syntax, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f := file{pkg: filepath.ToSlash(filepath.Dir(rel)), name: filepath.ToSlash(rel), test: strings.HasSuffix(path, "_test.go"), syntax: syntax}
		for _, s := range syntax.Imports {
			p, err := strconv.Unquote(s.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, p)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d files of Go were found", len(out))
	}
	return out
}

// layerOf is the top-level folder of a package.
func layerOf(pkg string) string {
	l, _, _ := strings.Cut(pkg, "/")
	return l
}

// own is the path of an import below the module, if it is one of ours.
func own(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

// under reports whether a package is one of these, or lies below one.
func under(pkg string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return pkg == p || strings.HasPrefix(pkg, p+"/") })
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
