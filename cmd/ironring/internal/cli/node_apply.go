package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/cmd/ironring/internal/serve"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/node"
)

// createBatch is how many nodes one call creates.
const createBatch = 128

// knownDrivers are the drivers of this build. A cluster of another version may
// have others.
var knownDrivers = sync.OnceValue(serve.Drivers)

// driverSecret reports whether a driver of this build calls a key of
// driver_info a secret.
func driverSecret(key string) bool { return knownDrivers().Secret(key) }

func newNodeApplyCmd(f *Factory) *cobra.Command {
	a := &applying{fleet: fleet{f: f, maxFailures: 3}}
	var path string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make nodes what a file says",
		Long: `Make nodes what a file says: create those that are missing, change what differs,
leave alone what is as it should be. Nodes that are not in the file are never
touched, and no node is ever deleted. Fields that the file does not give stay.

The whole file is checked first, against its own lines and the cluster; then the
differences are shown, and a person is asked. What was cut off is completed by
the same command again.

The file is YAML or CSV, as "ironring node export" writes it. Secrets stand in
it by reference, {env: NAME} or {file: PATH}; a secret that is left out stays
what it is. Stored secrets cannot be compared: they are only written again with
--update-secrets.`,
		Example: "  ironring node apply -f fleet.yaml --dry-run\n  ironring node export -o csv > fleet.csv && ironring node apply -f fleet.csv",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if path == "" {
				return errs.About(errs.Invalid, "file", "give the file with -f")
			}
			if a.parallel < 1 || a.parallel > 1000 {
				return errs.About(errs.Invalid, "parallel", "--parallel %d: must be 1 to 1000", a.parallel)
			}
			return a.run(ctx, c, path)
		}),
	}
	fl := cmd.Flags()
	fl.StringVarP(&path, "file", "f", "", "the `FILE`: .yaml or .csv")
	fl.BoolVar(&a.dryRun, "dry-run", false, "check the file and show the differences, and do nothing")
	fl.BoolVar(&a.yes, "yes", false, "do not ask")
	fl.BoolVar(&a.secrets, "update-secrets", false, "write the secrets that the file refers to, also where one is stored")
	fl.IntVar(&a.parallel, "parallel", 10, "change at most `N` nodes at a time")
	fl.IntVar(&a.maxFailures, "max-failures", 3, "begin no more after `N` failures; 0: begin all, whatever fails")
	return cmd
}

// applying is one run of apply.
type applying struct {
	fleet
	secrets bool
}

func (a *applying) run(ctx context.Context, c *client.Client, path string) error {
	entries, err := a.f.readFleet(path)
	if err != nil {
		return err
	}
	changes, err := a.plan(ctx, c, path, entries)
	if err != nil {
		return err
	}
	todo := slices.DeleteFunc(slices.Clone(changes), func(ch *change) bool { return ch.kind() == "unchanged" })
	if a.dryRun || len(todo) == 0 {
		return a.showPlan(changes, nil)
	}
	if !a.f.json() {
		if err := a.showPlan(changes, nil); err != nil {
			return err
		}
	}
	if err := a.agree(todo); err != nil {
		return err
	}
	return a.carryOut(ctx, c, changes, todo)
}

func (a *applying) agree(todo []*change) error {
	switch {
	case a.yes:
		return nil
	case !a.f.interactive():
		return errs.New(errs.Invalid, "nobody can be asked here (standard input is no terminal), so nothing was done: look at --dry-run, then give --yes")
	}
	got, err := a.f.ask(fmt.Sprintf("Type yes to create and change these %d nodes: ", len(todo)))
	if err == nil && got != "yes" {
		err = errs.New(errs.Invalid, "%q is not yes; nothing was done", oneLine(got))
	}
	return err
}

// plan compares the file with the cluster and checks what can only be seen
// there.
func (a *applying) plan(ctx context.Context, c *client.Client, path string, entries []*entry) ([]*change, error) {
	all, err := allNodes(ctx, c, &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}})
	if err != nil {
		return nil, err
	}
	ports, err := c.ListPorts(ctx, &api.ListPortsRequest{})
	if err != nil {
		return nil, err
	}
	p := &problems{path: path}
	st := newStock(all.GetNodes(), ports.GetPorts())
	mine := map[string]*entry{} // by id of the node
	found := make([]*api.Node, len(entries))
	for i, e := range entries {
		n := st.find(e, p)
		if n == nil {
			continue
		}
		if other := mine[n.GetId()]; other != nil {
			p.add(e.line, "is the same node as %s on line %d", other.label(), other.line)
		}
		mine[n.GetId()], found[i] = e, n
	}
	var changes []*change
	for i, e := range entries {
		st.conflicts(e, found[i], mine, p)
		ch, err := e.difference(found[i], st.ports[found[i].GetId()], a.secrets)
		if err != nil {
			p.add(e.at(errs.SubjectOf(err)), "%v", err)
			continue
		}
		a.checkChange(ch, p)
		changes = append(changes, ch)
	}
	return changes, p.err()
}

// checkChange makes sure that the secrets are there and that the driver takes
// what the node will have.
func (a *applying) checkChange(ch *change, p *problems) {
	e := ch.entry
	n := &api.Node{}
	if ch.old != nil {
		n = proto.CloneOf(ch.old)
		if _, err := ch.update(a.f); err != nil {
			p.add(e.at(errs.SubjectOf(err)), "%v", err)
			return
		}
		// What is not read now is stored already.
		if err := e.apply(n, func(reference) (string, error) { return "stored", nil }); err != nil {
			p.add(e.line, "%v", err)
			return
		}
		var stored map[string]any
		if v, ok := jsonValue(string(ch.old.GetDriverInfo())); ok {
			stored, _ = v.(map[string]any)
		}
		n.DriverInfo = withKept(n.GetDriverInfo(), stored)
	} else {
		req, err := e.newNode(a.f)
		if err != nil {
			p.add(e.at(errs.SubjectOf(err)), "%v", err)
			return
		}
		n = req.GetNode()
		if n.GetDriver() == "" {
			p.add(e.line, "%s is new and needs a driver", e.label())
			return
		}
	}
	if n.GetMaintenanceReason() != "" && !n.GetMaintenance() {
		p.add(e.at("maintenance_reason"), "maintenance_reason: there is a reason, but the node is not in maintenance")
	}
	d, err := knownDrivers().Get(n.GetDriver())
	if err != nil || ch.old != nil && len(ch.lines) == 0 {
		return // the cluster may have drivers that this build does not; and what is stored was checked
	}
	info := drivers.Info{}
	if v, ok := jsonValue(string(n.GetDriverInfo())); ok {
		info, _ = v.(map[string]any)
	}
	if err := d.Validate(info); err != nil {
		p.add(e.at("driver_info/"+errs.SubjectOf(err)), "%v", err)
	}
}

// withKept adds the secrets that stay to driver_info, masked.
func withKept(info []byte, stored map[string]any) []byte {
	v, _ := jsonValue(string(info))
	doc, _ := v.(map[string]any)
	if doc == nil {
		doc = map[string]any{}
	}
	for k, was := range stored {
		if _, given := doc[k]; !given && masked(was) {
			doc[k] = was
		}
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return info
	}
	return raw
}

// showPlan prints what differs, and with -o json what became of it.
func (a *applying) showPlan(changes []*change, results []outcome) error {
	if a.f.json() {
		type row struct {
			Node   string   `json:"node"`
			Change string   `json:"change"`
			Diff   []string `json:"diff"`
		}
		plan := []row{}
		for _, ch := range changes {
			plan = append(plan, row{ch.entry.label(), ch.kind(), append([]string{}, ch.lines...)})
		}
		doc := map[string]any{"plan": plan}
		if results != nil {
			doc["results"] = results
		}
		return a.f.encode(doc)
	}
	var b strings.Builder
	count := map[string]int{}
	for _, ch := range changes {
		count[ch.kind()]++
		if ch.kind() == "unchanged" {
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", ch.kind(), ch.entry.label())
		for _, l := range ch.lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	fmt.Fprintf(&b, "%d to create, %d to change, %d unchanged\n", count["create"], count["change"], count["unchanged"])
	_, err := fmt.Fprint(a.f.Out, b.String())
	return err
}

// carryOut does what was agreed to: first the new nodes, in batches, then the
// changes, some at a time.
func (a *applying) carryOut(ctx context.Context, c *client.Client, changes, todo []*change) error {
	results := make([]outcome, 0, len(todo))
	var fresh, other []*change
	for _, ch := range todo {
		if ch.old == nil {
			fresh = append(fresh, ch)
		} else {
			other = append(other, ch)
		}
	}
	failures := 0
	for batch := range slices.Chunk(fresh, createBatch) {
		out := make([]outcome, len(batch))
		if a.maxFailures > 0 && failures >= a.maxFailures || ctx.Err() != nil {
			for i, ch := range batch {
				out[i] = outcome{Node: ch.entry.label(), ID: ch.entry.id, Result: "not begun"}
			}
		} else {
			a.create(ctx, c, batch, out)
		}
		for _, o := range out {
			if o.Result == "failed" {
				failures++
			}
		}
		results = append(results, out...)
	}
	byID := map[string]*change{}
	var nodes []*api.Node
	for _, ch := range other {
		byID[ch.old.GetId()] = ch
		nodes = append(nodes, ch.old)
	}
	left := a.fleet
	if left.maxFailures > 0 {
		left.maxFailures = max(1, left.maxFailures-failures)
	}
	results = append(results, left.all(ctx, c, nodes, nil, work{verb: "change", same: meant, each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
		return "changed", a.changeOne(ctx, c, byID[n.GetId()], n)
	}})...)
	if a.f.json() {
		if err := a.showPlan(changes, results); err != nil {
			return err
		}
	} else if err := a.f.printOutcomes(results); err != nil {
		return err
	}
	if slices.ContainsFunc(results, func(o outcome) bool { return !o.good() }) {
		return exitStatus(1)
	}
	return nil
}

func (a *applying) create(ctx context.Context, c *client.Client, batch []*change, out []outcome) {
	req := &api.CreateNodesRequest{}
	fail := func(err error) {
		for i, ch := range batch {
			out[i] = outcome{Node: ch.entry.label(), ID: ch.entry.id}
			out[i].fail("failed", err)
		}
	}
	for _, ch := range batch {
		one, err := ch.entry.newNode(a.f)
		if err != nil {
			fail(err)
			return
		}
		req.Nodes = append(req.Nodes, one)
	}
	rep, err := c.CreateNodes(ctx, req)
	if err == nil && len(rep.GetResults()) != len(batch) {
		err = errs.New(errs.Internal, "%d answers for %d nodes", len(rep.GetResults()), len(batch))
	}
	if err != nil {
		fail(err)
		return
	}
	for i, r := range rep.GetResults() {
		out[i] = outcome{Node: batch[i].entry.label(), ID: r.GetCreated().GetNode().GetId(), Result: "done", Text: "created"}
		if f := r.GetFailure(); f != nil {
			out[i].fail("failed", rpc.FromFailure(f))
		}
	}
}

// meant takes a node as it is now: changeOne compares what matters.
func meant(_, _ *api.Node) error { return nil }

// changeOne changes one node, of which n was read just now, if the differences
// still are those that were shown.
func (a *applying) changeOne(ctx context.Context, c *client.Client, ch *change, n *api.Node) error {
	ports, err := c.ListPorts(ctx, &api.ListPortsRequest{Node: ch.old.GetId()})
	if err != nil {
		return err
	}
	now, err := ch.entry.difference(n, ports.GetPorts(), a.secrets)
	if err != nil {
		return err
	}
	if !slices.Equal(now.lines, ch.lines) {
		return errs.About(errs.Conflict, ch.old.GetId(), "has changed since the differences were shown; nothing was done to it: run the command again")
	}
	if len(now.set)+len(now.unset) > 0 {
		req, err := now.update(a.f)
		if err != nil {
			return err
		}
		if _, err := c.UpdateNode(ctx, req); err != nil {
			return err
		}
	}
	for _, p := range now.drop {
		if _, err := c.DeletePort(ctx, &api.DeletePortRequest{Port: p.GetId()}); err != nil {
			return fmt.Errorf("port %s: %w", p.GetAddress(), err)
		}
	}
	for _, p := range now.add {
		if _, err := c.CreatePort(ctx, &api.CreatePortRequest{Node: ch.old.GetId(), Port: p}); err != nil {
			return fmt.Errorf("port %s: %w", p.GetAddress(), err)
		}
	}
	return nil
}

// stock is what the cluster has, by what can be of one node only.
type stock struct {
	byID, byName, byBMC map[string]*api.Node
	ports               map[string][]*api.Port // by node id
	macs                map[string]string      // to node ids
}

func newStock(nodes []*api.Node, ports []*api.Port) *stock {
	s := &stock{map[string]*api.Node{}, map[string]*api.Node{}, map[string]*api.Node{}, map[string][]*api.Port{}, map[string]string{}}
	for _, n := range nodes {
		s.byID[n.GetId()] = n
		if n.GetName() != "" {
			s.byName[n.GetName()] = n
		}
		if v, ok := jsonValue(string(n.GetDriverInfo())); ok {
			info, _ := v.(map[string]any)
			if key := bmcKey(info); key != "" {
				s.byBMC[key] = n
			}
		}
	}
	for _, p := range ports {
		s.ports[p.GetNodeId()] = append(s.ports[p.GetNodeId()], p)
		s.macs[p.GetAddress()] = p.GetNodeId()
	}
	return s
}

// find is the node that an entry is about; nil for a new one.
func (s *stock) find(e *entry, p *problems) *api.Node {
	if e.id == "" {
		return s.byName[e.name]
	}
	n, other := s.byID[e.id], s.byName[e.name]
	if e.name != "" && other != nil && other.GetId() != e.id {
		p.add(e.at("name"), "the name %s is of the node %s: is this the right cluster, or the right id?", e.name, other.GetId())
	}
	if n == nil && e.name == "" {
		p.add(e.at("id"), "there is no node %s, and a new one needs a name", e.id)
	}
	return n
}

// conflicts finds what the entry claims and another node has. mine are the
// nodes that the file is about.
func (s *stock) conflicts(e *entry, n *api.Node, mine map[string]*entry, p *problems) {
	for _, port := range e.ports {
		if owner, taken := s.macs[port.GetAddress()]; taken && owner != n.GetId() {
			p.add(e.at("ports"), "the MAC address %s is of node %s: one machine cannot be two nodes", port.GetAddress(), node.Label(s.byID[owner]))
		}
	}
	key := bmcKey(e.documents["driver_info"])
	other := s.byBMC[key]
	if key == "" || other == nil || other.GetId() == n.GetId() {
		return
	}
	if o := mine[other.GetId()]; o != nil && o.documents["driver_info"] != nil && bmcKey(o.documents["driver_info"]) != key {
		return // the file gives that node another one
	}
	p.add(e.at("driver_info"), "the BMC %s is of node %s: one machine cannot be two nodes", key, node.Label(other))
}
