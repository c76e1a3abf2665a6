package cli

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// stock is what the cluster has, by what can be of one node only.
type stock struct {
	byID, byName map[string]*api.Node
	byBMC        map[string][]placed    // by address
	ports        map[string][]*api.Port // by node id
	macs         map[string]string      // to node ids
}

// placed is a node at its BMC.
type placed struct {
	node *api.Node
	at   bmcPlace
}

func newStock(nodes []*api.Node, ports []*api.Port) *stock {
	s := &stock{map[string]*api.Node{}, map[string]*api.Node{}, map[string][]placed{}, map[string][]*api.Port{}, map[string]string{}}
	for _, n := range nodes {
		s.byID[n.GetId()] = n
		if n.GetName() != "" {
			s.byName[n.GetName()] = n
		}
		if v, ok := jsonValue(string(n.GetDriverInfo())); ok {
			info, _ := v.(map[string]any)
			if at := placeOf(info); at.address != "" {
				s.byBMC[at.address] = append(s.byBMC[at.address], placed{n, at})
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
	at := placeOf(e.documents["driver_info"])
	for _, other := range s.byBMC[at.address] {
		if !other.at.same(at) || other.node.GetId() == n.GetId() {
			continue
		}
		if o := mine[other.node.GetId()]; o != nil && o.documents["driver_info"] != nil && !placeOf(o.documents["driver_info"]).same(at) {
			continue // the file gives that node another one
		}
		p.add(e.at("driver_info"), "the BMC %s is of node %s: one machine cannot be two nodes", at, node.Label(other.node))
		return
	}
}
