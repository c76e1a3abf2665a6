package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure folders take values and return values: the same log gives the same
// state on every peer only if nothing in them looks at the world.
var pure = []string{"node", "ring", "fsm"}

// impure are packages that reach the world outside: files, network, clock,
// randomness, other processes. Below "net" only what works on texts and
// numbers is allowed.
var impure = []string{
	"os", "io/ioutil", "io/fs", "net", "syscall", "log", "log/slog", "runtime", "unsafe", "plugin",
	"math/rand", "crypto/rand", "hash/maphash", "database/sql", "testing",
	"golang.org/x/sys", "golang.org/x/net", "github.com/google/uuid", "google.golang.org/grpc",
}

var harmless = []string{"net/netip", "net/url"}

// clockCalls are the functions of package time that read or await the clock.
var clockCalls = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

func impurity(imp string) bool {
	if slices.Contains(harmless, imp) {
		return false
	}
	return slices.ContainsFunc(impure, func(bad string) bool {
		return imp == bad || strings.HasPrefix(imp, bad+"/")
	})
}

// TestPurity follows the imports of the pure folders through our own packages.
// api is generated and holds its service stubs beside the records, so it is
// where the walk ends.
func TestPurity(t *testing.T) {
	byPath := map[string]pkg{}
	for _, p := range packages(t) {
		byPath[p.ImportPath] = p
	}
	seen := map[string]bool{}
	var visit func(p pkg, via string)
	visit = func(p pkg, via string) {
		if seen[p.ImportPath] {
			return
		}
		seen[p.ImportPath] = true
		path, _ := rel(p.ImportPath)
		if path == "api" {
			return
		}
		for _, imp := range p.Imports {
			if impurity(imp) {
				t.Errorf("%s imports %s%s", path, imp, via)
			}
			if next, ours := byPath[imp]; ours {
				visit(next, fmt.Sprintf(" (reached from %s%s)", path, via))
			}
		}
		for _, msg := range effects(t, p) {
			t.Errorf("%s%s", msg, via)
		}
	}
	for _, p := range byPath {
		path, _ := rel(p.ImportPath)
		// Generators of documents live beside what they describe: programs and
		// test kits are not part of the pure core.
		if slices.Contains(pure, top(path)) && p.Name != "main" && !strings.HasSuffix(path, "test") {
			visit(p, "")
		}
	}
}

// effects finds goroutines and looks at the clock in the files of a package.
func effects(t *testing.T, p pkg) []string {
	t.Helper()
	var found []string
	for _, name := range append(slices.Clone(p.GoFiles), p.CgoFiles...) {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, fileEffects(fset, file)...)
	}
	return found
}

func fileEffects(fset *token.FileSet, file *ast.File) []string {
	var found []string
	at := func(n ast.Node) string {
		pos := fset.Position(n.Pos())
		return filepath.Base(pos.Filename) + ":" + strconv.Itoa(pos.Line)
	}
	clock := timeName(file)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, at(n)+": a goroutine in a pure package")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && clock != "" && x.Name == clock && slices.Contains(clockCalls, n.Sel.Name) {
				found = append(found, at(n)+": time."+n.Sel.Name+" in a pure package: time arrives inside the command")
			}
		}
		return true
	})
	return found
}

// timeName is the name under which a file imports package time, "" if it does not.
func timeName(file *ast.File) string {
	for _, imp := range file.Imports {
		if imp.Path.Value != `"time"` {
			continue
		}
		if imp.Name != nil {
			return imp.Name.Name
		}
		return "time"
	}
	return ""
}

// The rules themselves must be able to fail.
func TestPurityRulesBite(t *testing.T) {
	for _, bad := range []string{"os", "os/exec", "net", "net/http", "math/rand/v2", "google.golang.org/grpc/codes"} {
		if !impurity(bad) {
			t.Errorf("%s passes as pure", bad)
		}
	}
	for _, good := range []string{"net/netip", "time", "strings", "osxyz"} {
		if impurity(good) {
			t.Errorf("%s passes as impure", good)
		}
	}
	const src = "package x\nimport tm \"time\"\nfunc f() { go f(); _ = tm.Now(); _ = tm.Second }\n"
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x.go", src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := fileEffects(fset, file); len(got) != 2 {
		t.Errorf("effects of %q: %q, want a goroutine and a look at the clock", src, got)
	}
}
