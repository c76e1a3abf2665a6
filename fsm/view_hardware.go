package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// NodeWithBMC is a node other than the given one that was verified with the
// same BMC or the same machine, nil when there is none. What a node was verified
// with before its driver_info changed counts.
func (v *View) NodeWithBMC(facts *api.BmcFacts, but string) *api.Node {
	return claimant(facts,
		func(ix, key string) []*api.Node { return collect(scan(v.txn, nodes, ix, key)) },
		func(n *api.Node) bool { return n.GetId() != but })
}

// claimant is a node that has the BMC or the machine of a reading, of those that
// count. The same BMC is enough, whatever is behind it: calls for either would go
// to one machine. Machines are found by any of their marks, and node.Compare says
// whether they are one: a UUID that differs outweighs equal serial numbers.
func claimant(facts *api.BmcFacts, under func(ix, key string) []*api.Node, counts func(*api.Node) bool) *api.Node {
	if key := facts.GetBmcKey(); key != "" {
		for _, n := range under(byBMC, key) {
			if counts(n) && n.GetBmc().GetBmcKey() == key {
				return n
			}
		}
	}
	for _, claim := range node.Claims(facts) {
		for _, n := range under(byClaim, claim) {
			if counts(n) && node.Compare(facts, n.GetBmc()) == node.SameMachine {
				return n
			}
		}
	}
	return nil
}
