package fsm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Who leads a node elsewhere by mistake and back again does not thereby trust
// whatever is at the first address by then.
func TestFirstUseAfterSlip(t *testing.T) {
	f := newFixture(t)
	f.ok(nodeCreate(nodeID(1), "a"))
	tls := func() *api.BmcTls { return f.s.View().Node(nodeID(1)).GetBmcTls() }
	fpC := "sha256:" + strings.Repeat("c", 64)
	f.ok(trust(api.BmcTrust_FIRST, fpA, "a:443"))
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":"b"}`)}, "driver_info"))
	f.ok(trust(api.BmcTrust_FIRST, fpB, "b:443"))
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":"a"}`)}, "driver_info"))
	if got := node.KnownCertificate(tls(), "a:443"); got != fpA {
		t.Fatalf("at the first address %q is trusted, %v", got, tls())
	}
	f.ok(trust(api.BmcTrust_FIRST, fpA, "a:443"))
	f.fails(errs.Conflict, trust(api.BmcTrust_FIRST, fpC, "a:443"))
	f.fails(errs.Conflict, trust(api.BmcTrust_CHANGED, fpA, "a:443"))
	f.ok(trust(api.BmcTrust_CHANGED, fpC, "a:443"))
	n := f.s.View().Node(nodeID(1))
	if tls().GetChangedTo() != fpC || tls().GetFingerprint() != fpA || tls().GetAddress() != "a:443" || !strings.Contains(n.GetFault(), fpC) {
		t.Fatalf("after a change: %v, fault %q", tls(), n.GetFault())
	}
	// What is accepted is of the address that showed it.
	f.ok(trust(api.BmcTrust_ACCEPT, fpC, ""))
	for address, want := range map[string]string{"a:443": fpC, "b:443": fpB, "c:443": ""} {
		if got := node.KnownCertificate(tls(), address); got != want {
			t.Errorf("at %s %q is trusted, want %q", address, got, want)
		}
	}
	if tls().GetChangedTo() != "" || len(tls().GetBefore()) != 1 {
		t.Errorf("once accepted: %v", tls())
	}
	for i := range 3 * maxCertificates {
		f.ok(trust(api.BmcTrust_FIRST, fpA, fmt.Sprintf("d%d:443", i)))
	}
	if got := tls().GetBefore(); len(got) != maxCertificates || got[0].GetAddress() == "a:443" {
		t.Errorf("%d certificates are remembered: %v", len(got), got)
	}
}
