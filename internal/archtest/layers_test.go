package archtest

import (
	"slices"
	"strings"
	"testing"
)

// mayImport is, for each folder of the tree, which other folders it may
// import. Imports point downwards only; cluster, pxe and drivers are siblings
// that do not know each other; client and agent know only what travels.
var mayImport = map[string][]string{
	"api":       {},
	"internal":  {"api"},
	"node":      {"api", "internal"},
	"ring":      {"api", "internal"},
	"fsm":       {"node", "ring", "api", "internal"},
	"cluster":   {"fsm", "node", "ring", "api", "internal"},
	"pxe":       {"fsm", "node", "ring", "api", "internal"},
	"drivers":   {"fsm", "node", "ring", "api", "internal"},
	"conductor": {"cluster", "pxe", "drivers", "fsm", "node", "ring", "api", "internal"},
	"client":    {"api", "internal"},
	"agent":     {"api", "internal"},
	"sim":       {"conductor", "cluster", "pxe", "fsm", "node", "ring", "agent", "client", "api", "internal"},
	"ironic":    {"conductor", "cluster", "pxe", "drivers", "fsm", "node", "ring", "api", "internal"},
	"ui":        {"conductor", "cluster", "pxe", "drivers", "fsm", "node", "ring", "api", "internal"},
}

// unbound folders may import anything: programs and the end-to-end tests.
var unbound = []string{"cmd", "e2e", "tools"}

func TestImportOrder(t *testing.T) {
	for _, p := range packages(t) {
		path, ok := rel(p.ImportPath)
		if !ok || path == "" || slices.Contains(unbound, top(path)) || kit(path) {
			continue
		}
		allowed, known := mayImport[top(path)]
		if !known {
			t.Errorf("%s: folder %q has no place in the import order; give it one in mayImport", path, top(path))
			continue
		}
		for _, imp := range p.Imports {
			to, ours := rel(imp)
			if !ours || top(to) == top(path) || slices.Contains(allowed, top(to)) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %s", path, to, top(path), strings.Join(allowed, ", "))
		}
	}
}

// The program inside the ramdisk is small because it knows only the agent.
func TestAgentProgramStaysSmall(t *testing.T) {
	for _, p := range packages(t) {
		if path, _ := rel(p.ImportPath); path != "cmd/ironring-agent" {
			continue
		}
		for _, dep := range p.Deps {
			if to, ours := rel(dep); ours && !slices.Contains([]string{"agent", "api", "internal"}, top(to)) {
				t.Errorf("cmd/ironring-agent reaches %s", to)
			}
		}
	}
}

// heavy must never reach a program that only talks to Ironring.
var heavy = []string{
	"github.com/hashicorp", "github.com/bmc-toolbox/bmclib", "github.com/stmcginnis/gofish", "go.etcd.io/bbolt", "cel.dev",
	module + "/node", module + "/ring", module + "/fsm", module + "/cluster", module + "/conductor",
}

func TestClientIsLight(t *testing.T) {
	for _, p := range packages(t) {
		path, _ := rel(p.ImportPath)
		if top(path) != "client" && top(path) != "api" && top(path) != "agent" || kit(path) {
			continue
		}
		for _, dep := range p.Deps {
			for _, h := range heavy {
				if dep == h || strings.HasPrefix(dep, h+"/") {
					t.Errorf("%s reaches %s", path, dep)
				}
			}
		}
	}
}

// kit reports whether a package is test support, which may import what the
// tests that it is for may: nothing of the product imports it.
func kit(path string) bool { return strings.HasSuffix(path, "test") }

// Test kits are for tests: no file of the product may import one.
func TestKitsStayInTests(t *testing.T) {
	for _, p := range packages(t) {
		path, _ := rel(p.ImportPath)
		if kit(path) || top(path) == "e2e" {
			continue // a kit may use another kit
		}
		for _, imp := range p.Imports {
			if to, ours := rel(imp); ours && strings.HasSuffix(to, "test") {
				t.Errorf("%s imports the test kit %s", path, to)
			}
		}
	}
}
