package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func (w *work) portCreate(op *api.PortCreate, out *api.OpResult) error {
	p := op.GetPort()
	if err := checkUUID("port id", p.GetId()); err != nil {
		return err
	}
	if err := checkMAC(p.GetAddress()); err != nil {
		return err
	}
	if err := checkSize("physical_network", len(p.GetPhysicalNetwork()), 255); err != nil {
		return err
	}
	if err := checkSize("extra", len(p.GetExtra()), maxDocument); err != nil {
		return err
	}
	if get(w, nodes, p.GetNodeId()) == nil {
		return noSuch("node", p.GetNodeId())
	}
	if get(w, ports, p.GetId()) != nil {
		return errs.About(errs.Exists, p.GetId(), "port %s exists already", p.GetId())
	}
	if other := w.portByMAC(p.GetAddress()); other != nil {
		return errs.About(errs.Exists, p.GetAddress(), "node %s has a port with the MAC %s already",
			other.GetNodeId(), p.GetAddress())
	}
	p = proto.CloneOf(p)
	p.Rev, p.CreatedMs = 1, w.meta.GetWallMs()
	put(w, ports, p)
	out.Id, out.Rev = p.GetId(), p.GetRev()
	return nil
}

func (w *work) portDelete(op *api.PortDelete) error {
	p := get(w, ports, op.GetPortId())
	if p == nil {
		return noSuch("port", op.GetPortId())
	}
	if why := w.underWork(p.GetNodeId()); why != "" {
		return errs.About(errs.Locked, p.GetAddress(), "port %s cannot be deleted: %s", p.GetAddress(), why)
	}
	w.dropPort(p)
	return nil
}

// underWork says why what a node boots with must stay as it is, "" if it need
// not: a machine that boots would no longer be answered, and its address would
// be free for another one.
func (w *work) underWork(nodeID string) string {
	name := nodeID
	if n := get(w, nodes, nodeID); n.GetName() != "" {
		name = n.GetName()
	}
	if f := get(w, flows, nodeID); running(f) {
		return fmt.Sprintf("%s of node %s is under way", flowName(f), name)
	}
	if l := get(w, locks, nodeID); l != nil {
		return fmt.Sprintf("node %s is locked by conductor %s", name, l.GetConductor())
	}
	return ""
}

func (w *work) portByMAC(mac string) *api.Port {
	for _, p := range find(w, ports, byMAC, mac, func(p *api.Port) bool { return p.GetAddress() == mac }) {
		return p
	}
	return nil
}

// dropPort deletes a port and frees its addresses.
func (w *work) dropPort(p *api.Port) {
	mac := p.GetAddress()
	for _, a := range find(w, addresses, byMAC, mac, func(a *api.Address) bool { return a.GetMac() == mac }) {
		w.dropAddress(a)
	}
	drop(w, ports, p.GetId())
}

// checkMAC accepts the one form in which MACs are stored: lower case, colons.
func checkMAC(mac string) error {
	if !node.ValidMAC(mac) {
		return errs.About(errs.Invalid, "address", "MAC %q is not of the form 52:54:00:12:34:56", clip(mac, maxID))
	}
	return nil
}
