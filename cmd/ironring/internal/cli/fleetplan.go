package cli

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/cmd/ironring/internal/serve"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// knownDrivers are the drivers of this build. A cluster of another version may
// have others.
var knownDrivers = sync.OnceValue(serve.Drivers)

// plan compares the file with the cluster and checks what can only be seen
// there.
func (a *applying) plan(ctx context.Context, c *client.Client, path string, entries []*entry) ([]*change, error) {
	all, err := allNodes(ctx, c, &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}})
	if err != nil {
		return nil, err
	}
	ports, err := c.ListPorts(ctx, &api.ListPortsRequest{Read: &api.ReadOptions{Linearizable: true}})
	if err != nil {
		return nil, err
	}
	p := &problems{path: path}
	if err := a.sameCluster(ctx, c, entries, p); err != nil {
		return nil, err
	}
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

// sameCluster refuses what was exported from another cluster: two clusters that
// look after the same machines take them from each other.
func (a *applying) sameCluster(ctx context.Context, c *client.Client, entries []*entry, p *problems) error {
	if a.otherCluster || !slices.ContainsFunc(entries, func(e *entry) bool { return e.cluster != "" }) {
		return nil
	}
	is, err := c.Version(ctx, &api.VersionRequest{})
	if err != nil {
		return err
	}
	told := map[string]bool{"": true, is.GetClusterId(): true}
	for _, e := range entries {
		if !told[e.cluster] {
			told[e.cluster] = true
			p.add(e.at(clusterKey), "was exported from the cluster %s, and this is %s: is this the right cluster? Two that have the same machines take them from each other; when the other one has them no more, give --from-other-cluster", e.cluster, is.GetClusterId())
		}
	}
	return nil
}

// checkChange makes sure that the secrets are there and that the driver takes
// what the node will have.
func (a *applying) checkChange(ch *change, p *problems) {
	e := ch.entry
	n := &api.Node{}
	if ch.old != nil {
		n = proto.CloneOf(ch.old)
		before := len(p.all)
		for _, at := range slices.Sorted(maps.Keys(ch.set)) {
			e.unresolved(a.f, at, ch.set[at], p)
		}
		if len(p.all) > before {
			return
		}
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
		before := len(p.all)
		for _, d := range node.Documents {
			if doc := e.documents[d.Field]; doc != nil {
				e.unresolved(a.f, d.Field, doc, p)
			}
		}
		if len(p.all) > before {
			return
		}
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
