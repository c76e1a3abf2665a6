package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// checkLast refuses to delete the only network that boots machines while work
// is under way that has to boot one: it may not have an address yet. With
// another network left nobody can tell from the state on which one a machine
// will ask; then only addresses that it has keep a network (forgetAddresses).
func (w *work) checkLast(name string) error {
	if get(w, networks, name).GetMode() == api.DHCPMode_DHCP_OFF {
		return nil
	}
	for _, n := range all(w, networks) {
		if n.GetName() != name && n.GetMode() != api.DHCPMode_DHCP_OFF {
			return nil
		}
	}
	for _, f := range find(w, flows, byRunning, "", running) {
		switch f.GetKind() {
		case api.FlowKind_FLOW_INSPECT, api.FlowKind_FLOW_DEPLOY, api.FlowKind_FLOW_CLEAN, api.FlowKind_FLOW_TEARDOWN:
			return errs.About(errs.Locked, name, "network %s cannot be deleted: it is the only one that machines boot from, and %s of node %s is under way",
				name, flowName(f), f.GetNodeId())
		}
	}
	return nil
}
