package fsm

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// View is a consistent picture of the state. It costs nothing to make and
// holds no lock. Records are shared: they must not be modified. Lookups give
// nil when there is no such record; sequences are in key order.
type View struct {
	txn  *memdb.Txn
	head *head
}

func newView(db *memdb.MemDB) *View {
	txn := db.Txn(false)
	raw, err := txn.First(tableHead, byID, only)
	must(err)
	return &View{txn: txn, head: raw.(*head)}
}

// first is one record by an index, nil when there is none.
func first[R proto.Message](txn *memdb.Txn, t *table[R], ix, key string) (r R) {
	raw, err := txn.First(t.name, ix, key)
	must(err)
	if raw != nil {
		r = raw.(R)
	}
	return r
}

// scan is all records, or those that an index has under one key.
func scan[R proto.Message](txn *memdb.Txn, t *table[R], ix string, key ...any) iter.Seq[R] {
	return func(yield func(R) bool) {
		it, err := txn.Get(t.name, ix, key...)
		must(err)
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(R)) {
				return
			}
		}
	}
}

func collect[R any](seq iter.Seq[R]) []R {
	var out []R
	for r := range seq {
		out = append(out, r)
	}
	return out
}

// Index is the index of the last entry in this picture.
func (v *View) Index() uint64 { return v.head.index }

// Term is the Raft term of the last entry in this picture.
func (v *View) Term() uint64 { return v.head.term }

// Globals are the cluster-wide counters.
func (v *View) Globals() *api.Globals { return v.head.globals() }

// Settings are those of Bootstrap or of the last SettingsSet.
func (v *View) Settings() *api.Settings { return first(v.txn, settings, byID, TableSettings) }

// Keys says which keys the cluster uses; nil before there are any.
func (v *View) Keys() *api.Keys { return first(v.txn, keys, byID, TableKeys) }

// Former is the member that had this id and the key of this digest and is none
// any more; nil when there was none.
func (v *View) Former(id string, keyDigest []byte) *api.FormerMember {
	return first(v.txn, former, byID, formerKey(&api.FormerMember{Id: id, KeyDigest: keyDigest}))
}

// SpentKey is why a shared key of key_file is good for nothing any more; nil
// while it is good.
func (v *View) SpentKey(id string) *api.SpentKey { return first(v.txn, spentKeys, byID, id) }

// Node is a node by id.
func (v *View) Node(id string) *api.Node { return first(v.txn, nodes, byID, id) }

// NodeByName is a node by name.
func (v *View) NodeByName(name string) *api.Node {
	if name == "" {
		return nil
	}
	return first(v.txn, nodes, byName, name)
}

// NodeByRef is a node by id or name; errs.NotFound when there is none.
func (v *View) NodeByRef(ref string) (*api.Node, error) {
	if n := v.Node(ref); n != nil {
		return n, nil
	}
	if n := v.NodeByName(ref); n != nil {
		return n, nil
	}
	return nil, noSuch("node", ref)
}

// Nodes are all nodes by id.
func (v *View) Nodes() iter.Seq[*api.Node] { return scan(v.txn, nodes, byID) }

// NodesAfter are the nodes whose id is larger than a marker.
func (v *View) NodesAfter(marker string) iter.Seq[*api.Node] {
	return func(yield func(*api.Node) bool) {
		it, err := v.txn.LowerBound(nodes.name, byID, marker)
		must(err)
		for raw := it.Next(); raw != nil; raw = it.Next() {
			n := raw.(*api.Node)
			if n.GetId() != marker && !yield(n) {
				return
			}
		}
	}
}

// NodesAssigned are the nodes of an owner, "" those that nobody owns. It looks
// at all nodes: an index would cost every change of a node more than the few
// who ask now and then.
func (v *View) NodesAssigned(member string) iter.Seq[*api.Node] {
	return func(yield func(*api.Node) bool) {
		for n := range v.Nodes() {
			if n.GetAssigned() == member && !yield(n) {
				return
			}
		}
	}
}

// NodeCount is the number of nodes.
func (v *View) NodeCount() int { return v.head.nodes }

// Port is a port by id.
func (v *View) Port(id string) *api.Port { return first(v.txn, ports, byID, id) }

// PortByMAC is a port by its address, lower case with colons.
func (v *View) PortByMAC(mac string) *api.Port { return first(v.txn, ports, byMAC, mac) }

// PortsOf are the ports of a node.
func (v *View) PortsOf(nodeID string) []*api.Port { return collect(scan(v.txn, ports, byNode, nodeID)) }

// Ports are all ports.
func (v *View) Ports() iter.Seq[*api.Port] { return scan(v.txn, ports, byID) }

// Network is a network by name.
func (v *View) Network(name string) *api.Network { return first(v.txn, networks, byID, name) }

// Networks are all networks.
func (v *View) Networks() []*api.Network { return collect(scan(v.txn, networks, byID)) }

// NetworkFor is the network that an address belongs to: one of its relays, or
// inside its CIDR.
func (v *View) NetworkFor(addr netip.Addr) *api.Network {
	addr = addr.Unmap()
	var inside *api.Network
	for n := range scan(v.txn, networks, byID) {
		for _, r := range n.GetRelays() {
			if a, err := netip.ParseAddr(r); err == nil && a == addr {
				return n
			}
		}
		if p, err := netip.ParsePrefix(n.GetCidr()); err == nil && p.Contains(addr) {
			inside = n // networks do not overlap
		}
	}
	return inside
}

// Address is the address of a MAC on a network.
func (v *View) Address(network, mac string) *api.Address {
	return first(v.txn, addresses, byID, addressKey(network, mac))
}

// AddressByIP is who has an IP address on a network.
func (v *View) AddressByIP(network, ip string) *api.Address {
	return first(v.txn, addresses, byIP, addressKey(network, ip))
}

// Addresses are all addresses.
func (v *View) Addresses() iter.Seq[*api.Address] { return scan(v.txn, addresses, byID) }

// Flow is a node's unfinished flow, or its last one.
func (v *View) Flow(nodeID string) *api.Flow { return first(v.txn, flows, byID, nodeID) }

// RunningFlows are the unfinished flows. Those without a Lock are the takeover
// queue.
func (v *View) RunningFlows() iter.Seq[*api.Flow] { return scan(v.txn, flows, byRunning, "") }

// Lock is the lock of a node.
func (v *View) Lock(nodeID string) *api.Lock { return first(v.txn, locks, byID, nodeID) }

// Locks are all locks.
func (v *View) Locks() iter.Seq[*api.Lock] { return scan(v.txn, locks, byID) }

// LocksOf are the locks that a lease holds.
func (v *View) LocksOf(leaseID string) iter.Seq[*api.Lock] {
	return scan(v.txn, locks, byLease, leaseID)
}

// Lease is a lease by id; old ones are kept for a while.
func (v *View) Lease(id string) *api.Lease { return first(v.txn, leases, byID, id) }

// LiveLease is the live lease of a conductor; there is at most one.
func (v *View) LiveLease(conductor string) *api.Lease {
	return first(v.txn, leases, byLive, conductor)
}

// Leases are all leases that are kept.
func (v *View) Leases() iter.Seq[*api.Lease] { return scan(v.txn, leases, byID) }

// Intent is the open intent of a node.
func (v *View) Intent(nodeID string) *api.Intent { return first(v.txn, intents, byID, nodeID) }

// Member is a member by id.
func (v *View) Member(id string) *api.Member { return first(v.txn, members, byID, id) }

// Members are all members.
func (v *View) Members() []*api.Member { return collect(scan(v.txn, members, byID)) }

// Reaches are what members observed of subnets of BMCs that at least one of
// them does not reach.
func (v *View) Reaches() []*api.Reach { return collect(scan(v.txn, reaches, byID)) }

// JoinToken is a join token by id.
func (v *View) JoinToken(id string) *api.JoinToken { return first(v.txn, tokens, byID, id) }

// History is the past of a node, oldest first.
func (v *View) History(nodeID string) []*api.History {
	raw, err := v.txn.First(tableHistory, byID, nodeID)
	must(err)
	if raw == nil {
		return nil
	}
	h := raw.(*past).entries
	return h[:len(h):len(h)] // the rest of the array belongs to Apply
}

// Audit is what people and clients asked for, oldest first.
func (v *View) Audit() iter.Seq[*api.Audit] { return slices.Values(v.head.audits) }

// Inventory is what the agent found in a node.
func (v *View) Inventory(nodeID string) *api.Inventory {
	return first(v.txn, inventories, byID, nodeID)
}

func noSuch(what, id string) error {
	return errs.About(errs.NotFound, id, "there is no %s %q", what, id)
}
