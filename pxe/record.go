package pxe

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/kernelargs"
)

// BootRecord is what a machine gets when it asks the network how to boot. It
// is a pure function of the replicated state and the same on every peer.
type BootRecord struct {
	MAC    string
	Known  bool           // a port has this MAC, and its node exists
	NodeID string         // set when Known
	State  api.State      // of the node
	Target api.BootTarget // what it gets; never RAMDISK without all that a ramdisk needs
	Nonce  string         // set when Target is RAMDISK
	Reason string         // why Target is not what the node's record says

	// Kernel and Initramfs are the digests of the published ramdisk; "": the
	// files in the ramdisk directory of whatever peer is asked.
	Kernel, Initramfs string

	// AgentPeers are the agent addresses of the peers, and BootPeers their
	// HTTP boot addresses, both in the order of this MAC.
	AgentPeers []string
	BootPeers  []string
	KernelArgs []string // of this node, after the site's
	// BootPort is the port of HTTP boot at most peers, 0 when there is none:
	// a machine finds the peer that answered DHCP at this port.
	BootPort uint16
}

// Record says what the machine with a MAC gets. The MAC is as ports store it.
func Record(v *fsm.View, mac string) BootRecord { return RecordOn(v, mac, nil) }

// RecordOn is Record for a machine that asks from a network: the addresses of
// the peers are those that the network's record gives them. nil: none is known.
func RecordOn(v *fsm.View, mac string, n *api.Network) BootRecord {
	r := BootRecord{MAC: mac, Target: api.BootTarget_BOOT_NOTHING}
	port := v.PortByMAC(mac)
	if port == nil {
		return r
	}
	node := v.Node(port.GetNodeId())
	if node == nil {
		return r
	}
	r.Known, r.NodeID, r.State = true, node.GetId(), node.GetState()
	r.Target = node.GetBoot().GetTarget()
	if r.Target == api.BootTarget_BOOT_RAMDISK {
		r.published(v, node)
		r.ramdisk(port, node, ranked(v.Members(), mac), n)
	}
	return r
}

// ramdisk fills in what a ramdisk needs, or lowers the target and says why.
func (r *BootRecord) ramdisk(port *api.Port, node *api.Node, order []*api.Member, n *api.Network) {
	r.Nonce = node.GetBoot().GetNonce()
	for _, m := range order {
		if len(r.AgentPeers) == maxLinePeers {
			break
		}
		here, _ := peerAddress(n, m.GetId())
		if a, ok := memberAddress(m.GetAgentAddress(), here); ok {
			r.AgentPeers = append(r.AgentPeers, a)
		}
		if a, ok := memberAddress(m.GetBootAddress(), here); ok {
			r.BootPeers = append(r.BootPeers, a)
		}
	}
	r.BootPort = commonPort(r.BootPeers)
	args, err := kernelargs.OfNode(node.GetProperties())
	r.KernelArgs = args
	switch {
	case err != nil: // a record that was made before they were checked
		r.Reason = "the node's kernel arguments cannot stand in a script"
	case !port.GetPxeEnabled():
		r.Reason = "network boot is off for this port"
	case !validNodeID.MatchString(r.NodeID):
		r.Reason = "the node's id cannot stand in a script"
	case !validNonce.MatchString(r.Nonce):
		r.Reason = "the node has no boot nonce"
	case len(r.AgentPeers) == 0:
		r.Reason = "no peer says where agents can reach it"
	case len(r.BootPeers) == 0:
		r.Reason = "no peer says where machines can boot from"
	default:
		return
	}
	r.Target, r.Nonce, r.KernelArgs, r.Kernel, r.Initramfs = api.BootTarget_BOOT_NOTHING, "", nil, "", ""
}

// memberAddress is where machines reach a listener of a member: at the address
// that it advertises, or at the same port of its address on their network.
func memberAddress(advertised string, here netip.Addr) (string, bool) {
	_, port, ok := validAddress(advertised)
	if ok && here.IsValid() {
		return netip.AddrPortFrom(here, port).String(), true
	}
	return advertised, ok
}

// commonPort is the port that most addresses have, the lowest of several.
func commonPort(addrs []string) uint16 {
	count := map[uint16]int{}
	var ports []uint16
	for _, a := range addrs {
		if _, p, ok := validAddress(a); ok {
			if count[p] == 0 {
				ports = append(ports, p)
			}
			count[p]++
		}
	}
	if len(ports) == 0 {
		return 0
	}
	return slices.MaxFunc(ports, func(a, b uint16) int {
		return cmp.Or(cmp.Compare(count[a], count[b]), cmp.Compare(b, a))
	})
}

// underWork says whether a node's state is one in which a peer that may be
// cut off still serves its boot: the machine belongs to a flow, not a tenant.
func underWork(s api.State) bool {
	switch s {
	case api.State_DEPLOYING, api.State_DEPLOY_WAIT, api.State_DEPLOY_HOLD,
		api.State_CLEANING, api.State_CLEAN_WAIT, api.State_CLEAN_HOLD,
		api.State_INSPECTING, api.State_INSPECT_WAIT:
		return true
	}
	return false
}
