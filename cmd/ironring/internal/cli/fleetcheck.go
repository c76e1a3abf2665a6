package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// problems collects everything that is wrong with a file: a person wants to
// know it all at once.
type problems struct {
	path string
	all  []problem
}

type problem struct {
	line int
	text string
}

func (p *problems) add(line int, format string, args ...any) {
	p.all = append(p.all, problem{line, fmt.Sprintf(format, args...)})
}

// err is nil when there are none.
func (p *problems) err() error {
	const most = 100
	if len(p.all) == 0 {
		return nil
	}
	slices.SortStableFunc(p.all, func(a, b problem) int { return a.line - b.line })
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot be used, nothing was done:", p.path)
	for i, one := range p.all {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(p.all)-most)
			break
		}
		fmt.Fprintf(&b, "\n  line %d: %s", one.line, oneLine(one.text))
	}
	return errs.New(errs.Invalid, "%s", b.String())
}

// nobody stands for an id that is not known yet.
const nobody = "00000000-0000-0000-0000-000000000000"

// check applies the rules of records to an entry.
func (e *entry) check(p *problems) {
	if e.name == "" && e.id == "" {
		p.add(e.line, "a node needs a name")
		return
	}
	n := &api.Node{Id: e.id, Driver: "x"}
	if n.Id == "" {
		n.Id = nobody
	}
	if err := e.apply(n, func(reference) (string, error) { return "secret", nil }); err != nil {
		p.add(e.line, "%v", err)
		return
	}
	if n.GetMaintenanceReason() != "" && e.fields["maintenance"] == nil {
		n.Maintenance = true // whether the node has it is not known yet
	}
	if err := node.NormalizeSpec(n); err != nil {
		p.add(e.at(errs.SubjectOf(err)), "%v", err)
	} else if err := node.CheckSpec(n); err != nil {
		p.add(e.at(errs.SubjectOf(err)), "%v", err)
	}
}

// checkTwice refuses what can be of one node only and is given to two.
func checkTwice(entries []*entry, p *problems) {
	seen, places := map[string]*entry{}, map[string][]*entry{}
	once := func(e *entry, line int, what, value string) {
		if value == "" {
			return
		}
		key := what + " " + value
		if before := seen[key]; before != nil {
			p.add(line, "%s is given to %s already, on line %d", key, before.label(), before.line)
			return
		}
		seen[key] = e
	}
	for _, e := range entries {
		once(e, e.at("name"), "the name", e.name)
		once(e, e.at("id"), "the id", e.id)
		for _, port := range e.ports {
			once(e, e.at("ports"), "the MAC address", port.GetAddress())
		}
		place := placeOf(e.documents["driver_info"])
		if place.address == "" {
			continue
		}
		for _, before := range places[place.address] {
			if was := placeOf(before.documents["driver_info"]); was.same(place) {
				p.add(e.at("driver_info"), "the BMC %s is given to %s already, on line %d", place, before.label(), before.line)
				break
			}
		}
		places[place.address] = append(places[place.address], e)
	}
}
