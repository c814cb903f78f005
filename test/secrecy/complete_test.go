package secrecy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// seeds are the types that are secrets.
var seeds = []string{"skep/chunker/secret.Key", "skep/chunker/words.Entropy", "crypto/ed25519.PrivateKey"}

// TestCarriersAreComplete reads the source for exported structs that carry a
// secret, by value or behind pointers, slices and maps. All are printed by
// TestNothingIsShown.
func TestCarriersAreComplete(t *testing.T) {
	fields := structs(t)
	carry := map[string]bool{}
	for _, s := range seeds {
		carry[s] = true
	}
	for grown := true; grown; {
		grown = false
		for name, of := range fields {
			if !carry[name] && slices.ContainsFunc(of, func(f string) bool { return carry[f] }) {
				carry[name], grown = true, true
			}
		}
	}
	listed := map[string]bool{}
	for _, typ := range slices.Concat(carriers, running) {
		listed[typ.PkgPath()+"."+typ.Name()] = true
	}
	n := 0
	for name := range carry {
		_, typ, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ".")
		if !strings.HasPrefix(name, "skep/") || !ast.IsExported(typ) {
			continue
		}
		n++
		if !listed[name] {
			t.Errorf("%s carries a secret and is not among the carriers", name)
		}
	}
	if n < 20 {
		t.Errorf("only %d types carry a secret", n)
	}
}

// structs are the structs of the program, with the types that their fields have
// or are made of.
func structs(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	out := map[string][]string{}
	for _, layer := range []string{"chunker", "cache", "net", "repair", "fs", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, layer), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err == nil {
				structsOf(f, "skep/"+filepath.ToSlash(dir), out)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func structsOf(f *ast.File, pkg string, out map[string][]string) {
	imports := map[string]string{}
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		name := path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		imports[name] = path
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range s.Fields.List {
				out[pkg+"."+spec.Name.Name] = append(out[pkg+"."+spec.Name.Name], madeOf(field.Type, pkg, imports)...)
			}
		}
		return false
	})
}

// madeOf are the named types that a type expression has, other than in
// functions and channels.
func madeOf(e ast.Expr, pkg string, imports map[string]string) (names []string) {
	switch e := e.(type) {
	case *ast.Ident:
		return []string{pkg + "." + e.Name}
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return []string{imports[x.Name] + "." + e.Sel.Name}
		}
	case *ast.StarExpr:
		return madeOf(e.X, pkg, imports)
	case *ast.ArrayType:
		return madeOf(e.Elt, pkg, imports)
	case *ast.MapType:
		return append(madeOf(e.Key, pkg, imports), madeOf(e.Value, pkg, imports)...)
	}
	return nil
}
