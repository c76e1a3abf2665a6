package fsm

import (
	"github.com/ironring/ironring/api"
)

// NodeWithBMC is a node other than the given one that was verified with the
// same BMC or the same machine, nil when there is none.
func (v *View) NodeWithBMC(facts *api.BmcFacts, but string) *api.Node {
	if key := facts.GetBmcKey(); key != "" {
		for n := range scan(v.txn, nodes, byBMC, key) {
			if n.GetId() != but {
				return n
			}
		}
	}
	if uuid, ok := uuidKey(&api.Node{Bmc: facts}); ok {
		for n := range scan(v.txn, nodes, byUUID, uuid) {
			if n.GetId() != but {
				return n
			}
		}
	}
	return nil
}
