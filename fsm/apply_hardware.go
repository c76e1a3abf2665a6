package fsm

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// faultCertificate begins the fault of a node whose BMC shows another
// certificate than the one that is trusted.
const faultCertificate = "bmc certificate changed: "

// maxBMCKey bounds the name of a BMC: host, port and path of the system.
const maxBMCKey = 1024

// checkFingerprint accepts "sha256:" and 64 lower-case hexadecimal digits.
func checkFingerprint(what, text string) error {
	sum, ok := strings.CutPrefix(text, "sha256:")
	raw, err := hex.DecodeString(sum)
	if !ok || err != nil || len(raw) != 32 || sum != strings.ToLower(sum) {
		return errs.About(errs.Invalid, what, "%s must be sha256: and 64 hexadecimal digits, not %q", what, clip(text, maxID))
	}
	return nil
}

// bmcTrust notes which certificate of a node's BMC is trusted.
func (w *work) bmcTrust(op *api.BmcTrust, out *api.OpResult) error {
	id := op.GetNodeId()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if err := checkFingerprint("fingerprint", op.GetFingerprint()); err != nil {
		return err
	}
	if err := checkSize("address", len(op.GetAddress()), maxText); err != nil {
		return err
	}
	if err := checkSize("trusted", len(op.GetTrusted()), maxText); err != nil {
		return err
	}
	tls := was.GetBmcTls()
	known := node.KnownCertificate(tls, op.GetAddress())
	here := known != ""
	switch op.GetHow() {
	case api.BmcTrust_FIRST:
		switch {
		case op.GetAddress() == "":
			return errs.About(errs.Invalid, "address", "a certificate of no address")
		case here && known == op.GetFingerprint():
			out.Id, out.Rev = id, was.GetRev()
			return nil
		case here:
			return errs.About(errs.Conflict, id, "node %s: the BMC at %s is known by the certificate %s already", id, op.GetAddress(), known)
		}
	case api.BmcTrust_CHANGED:
		if here && known == op.GetFingerprint() {
			return errs.About(errs.Conflict, id, "node %s: the certificate %s is the trusted one", id, op.GetFingerprint())
		}
	case api.BmcTrust_ACCEPT:
		if op.GetAddress() == "" && tls.GetAddress() == "" {
			return errs.About(errs.WrongState, id, "node %s: no certificate of its BMC is on record, so that there is none to replace", id)
		}
	default:
		return errs.About(errs.Invalid, "how", "a certificate is first, changed or accepted")
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	w.setTrust(n, op)
	out.Id, out.Rev = id, n.GetRev()
	return nil
}

// maxCertificates bounds what a node remembers of the addresses that its
// driver_info has led to before.
const maxCertificates = 8

// certificateAt makes the record speak of an address, with what is trusted there
// if anything is. What was trusted at others is remembered: whoever changes
// driver_info by mistake and puts it right must not thereby trust whatever is
// at the first address by then.
func certificateAt(tls *api.BmcTls, address string) *api.BmcTls {
	if tls != nil && tls.GetAddress() == address {
		return tls
	}
	now := &api.BmcTls{Address: address, Fingerprint: node.KnownCertificate(tls, address)}
	for _, c := range tls.GetBefore() {
		if c.GetAddress() != address {
			now.Before = append(now.Before, c)
		}
	}
	if tls.GetFingerprint() != "" {
		now.Before = append(now.Before, &api.KnownCertificate{Address: tls.GetAddress(), Fingerprint: tls.GetFingerprint()})
	}
	now.Before = now.Before[max(0, len(now.Before)-maxCertificates):]
	return now
}

// setTrust carries out what bmcTrust has found right.
func (w *work) setTrust(n *api.Node, op *api.BmcTrust) {
	address := op.GetAddress()
	if address == "" {
		address = n.GetBmcTls().GetAddress()
	}
	n.BmcTls = certificateAt(n.BmcTls, address)
	if op.GetHow() == api.BmcTrust_CHANGED {
		n.BmcTls.ChangedTo, n.BmcTls.ChangedMs = op.GetFingerprint(), w.meta.GetWallMs()
		text := faultCertificate + "trusted is " + op.GetTrusted() + ", seen is " + op.GetFingerprint() + "; no call is made to it"
		if n.GetFault() == "" || strings.HasPrefix(n.GetFault(), faultCertificate) {
			n.Fault = clip(text, maxText)
		}
		w.note(n, pastPatch, "%s", text)
		return
	}
	n.BmcTls.Fingerprint, n.BmcTls.FirstMs = op.GetFingerprint(), w.meta.GetWallMs()
	n.BmcTls.ChangedTo, n.BmcTls.ChangedMs = "", 0
	clearCertificateFault(n)
	w.note(n, pastPatch, "certificate of the BMC %s: %s", strings.ToLower(op.GetHow().String()), op.GetFingerprint())
}

func clearCertificateFault(n *api.Node) {
	if strings.HasPrefix(n.GetFault(), faultCertificate) {
		n.Fault = ""
	}
}

// doubtBMC is what a change of driver or driver_info means: it may be another
// BMC, which has refused nothing yet. What was known of it stays, to be compared
// with before anything is changed at the new one; that it was read with other
// driver_info, driver_rev tells. The certificate stays, for the address that it
// is of.
func doubtBMC(n *api.Node, wasDriver string, wasInfo []byte) {
	n.BmcPark = nil
	if n.GetDriver() != wasDriver || !bytes.Equal(n.GetDriverInfo(), wasInfo) {
		n.DriverRev = n.GetRev()
	}
	if n.GetBmcTls() != nil {
		n.BmcTls.ChangedTo, n.BmcTls.ChangedMs = "", 0
		clearCertificateFault(n)
	}
}

// checkBMC keeps BMCs and machines unique: what one node is verified with no
// other node can be. What a node was verified with before its driver_info
// changed does not count here: a person may give its machine to another node.
func (w *work) checkBMC(id string, facts *api.BmcFacts) error {
	key := facts.GetBmcKey()
	if err := checkSize("bmc_key", len(key), maxBMCKey); err != nil {
		return err
	}
	if strings.ContainsRune(key, 0) {
		return errs.About(errs.Invalid, "bmc_key", "bmc_key has a NUL")
	}
	other := claimant(facts, func(ix, key string) []*api.Node {
		return find(w, nodes, ix, key, func(n *api.Node) bool {
			return ix == byBMC && n.GetBmc().GetBmcKey() == key || ix == byClaim && slices.Contains(node.Claims(n.GetBmc()), key)
		})
	}, func(n *api.Node) bool { return n.GetId() != id && node.Verified(n) })
	switch {
	case other == nil:
		return nil
	case key != "" && other.GetBmc().GetBmcKey() == key:
		return errs.About(errs.Exists, id, "node %s has this BMC already (%s): two nodes cannot be one machine", nameOf(other), key)
	}
	machine, _ := node.Machine(facts)
	return errs.About(errs.Exists, id, "node %s has this machine already (%s): two nodes cannot be one machine", nameOf(other), machine)
}

func nameOf(n *api.Node) string {
	if n.GetName() != "" {
		return n.GetName()
	}
	return n.GetId()
}
