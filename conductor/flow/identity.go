package flow

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// sameMachine compares what the machine says of itself in-band with what the
// BMC says now (facts), what it said when the node was verified (n.bmc) and
// the node's ports. It gives the list of what agreed.
//
// Whatever both sides name must agree, and besides a MAC address at least one
// of UUID, serial number and BMC address must be there to agree: without that,
// nothing ties the machine to the BMC. Values that many machines share, which
// nobody filled in, count as not named. A site whose BMCs tell nothing may set
// properties/identity_check to "mac-only".
func sameMachine(inv *agentproto.Inventory, n *api.Node, facts *api.BmcFacts, ports []*api.Port) (proof []string, err error) {
	mismatch := func(what, machine, record string) error {
		return errs.About(errs.Denied, n.GetId(), node.IdentityMismatch+": the machine's %s is %s, %s; nothing was written. Is the BMC address that of another machine?", what, machine, record)
	}
	if !slices.ContainsFunc(inv.Interfaces, func(i agentproto.Interface) bool {
		mac, err := node.NormalizeMAC(i.MAC)
		return err == nil && slices.ContainsFunc(ports, func(p *api.Port) bool { return p.GetAddress() == mac })
	}) {
		return nil, errs.About(errs.Denied, n.GetId(), "identity mismatch: the machine has none of the MAC addresses of the node's ports; nothing was written")
	}
	proof = append(proof, "mac")
	tied := false
	for _, f := range []*api.BmcFacts{facts, n.GetBmc()} {
		if us := node.TellingUUIDs(f); len(us) > 0 && node.TellingUUID(inv.SystemUUID) {
			if !slices.ContainsFunc(us, func(u string) bool { return node.SameUUID(u, inv.SystemUUID) }) {
				return nil, mismatch("UUID", inv.SystemUUID, "the BMC says "+us[0])
			}
			tied, proof = true, append(proof, "uuid")
		}
		if s := f.GetSerial(); node.TellingSerial(s) && node.TellingSerial(inv.Serial) {
			if !strings.EqualFold(strings.TrimSpace(s), strings.TrimSpace(inv.Serial)) {
				return nil, mismatch("serial number", inv.Serial, "the BMC says "+s)
			}
			tied, proof = true, append(proof, "serial")
		}
		if their, ours := addresses(f.GetBmcAddresses()), addresses(inv.BMC.Addresses); len(their) > 0 && len(ours) > 0 {
			if !overlap(their, ours) {
				return nil, mismatch("own BMC", strings.Join(ours, ","), "the one we switch is "+strings.Join(their, ","))
			}
			tied, proof = true, append(proof, "bmc_address")
		}
		if their, ours := node.NormalMACs(f.GetBmcMacs()), node.NormalMACs(inv.BMC.MACs); len(their) > 0 && len(ours) > 0 && !overlap(their, ours) {
			return nil, mismatch("own BMC", strings.Join(ours, ","), "the one we switch has "+strings.Join(their, ","))
		}
	}
	slices.Sort(proof)
	proof = slices.Compact(proof)
	if tied {
		return proof, nil
	}
	if macOnly(n) {
		return proof, nil
	}
	return nil, errs.About(errs.Denied, n.GetId(),
		"identity mismatch: neither UUID, serial number nor BMC address is named by both the machine and its BMC, so nothing ties them together; nothing was written. If you know that they belong together: ironring node set %s --property identity_check=mac-only", n.GetId())
}

// addresses are IP addresses that can belong to one BMC only, in one form.
func addresses(texts []string) (out []string) {
	for _, t := range texts {
		a, err := netip.ParseAddr(strings.TrimSpace(t))
		if err == nil && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsLoopback() {
			out = append(out, a.Unmap().WithZone("").String())
		}
	}
	return out
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}
