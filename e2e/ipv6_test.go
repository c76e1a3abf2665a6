//go:build e2e && e2e_all

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

// TestIPv6 is a site where peers reach each other and the BMCs by IPv6 only,
// and agents reach peers by IPv6 only: the machine has its address from a
// router. DHCP, PXE and the firmware have IPv4. One peer is lost on the way.
func TestIPv6(t *testing.T) {
	if err := plugForeign(); err != nil {
		t.Fatal(err)
	}
	back, err := lab.UseIPv6(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := back(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	runCase(t, "ipv6", func(ctx context.Context, k *kase) error {
		router, err := lab.Router6(ctx)
		if err != nil {
			return err
		}
		defer router.Kill()
		if err := noIPv4(ctx); err != nil {
			return err
		}
		vm, bmc, err := k.machine(ctx, 1, nil, harness.BMCSpec{})
		if err != nil {
			return err
		}
		if !strings.Contains(bmc.Addr, ":") {
			return fmt.Errorf("the BMC is at %s", bmc.Addr)
		}
		if err := k.inspected(ctx, "n1", vm, bmc); err != nil {
			return err
		}
		// Its address is fd77::... or, while that is checked for doubles, fe80::...
		if err := k.timelineHas(ctx, "n1", "agent enrolled from f"); err != nil {
			return err
		}
		var st harness.Status
		if err := k.CLI(ctx, &st, "cluster", "status"); err != nil {
			return err
		}
		lost := k.Peer(st.Leader)
		if lost == nil {
			return fmt.Errorf("leader is %q", st.Leader)
		}
		lost.Kill()
		if err := k.verb(ctx, "n1", "provide", "AVAILABLE", 6*time.Minute); err != nil {
			return err
		}
		return lost.Start(ctx)
	})
}

// noIPv4 makes sure that peers have no IPv4 address where they reach each
// other and the BMCs, and the BMCs none at all.
func noIPv4(ctx context.Context) error {
	at := [][2]string{{"bmc", "bmc"}}
	for _, p := range []string{"p1", "p2", "p3"} {
		at = append(at, [2]string{p, "mgmt"}, [2]string{p, "bmc"})
	}
	var all []error
	for _, a := range at {
		out, err := lab.Output(ctx, harness.Cmd{Name: "ip -4 addr", Args: []string{"ip", "-n", lab.NS(a[0]), "-4", "-brief", "addr", "show", "dev", a[1]}})
		if err != nil || strings.TrimSpace(out) != "" {
			all = append(all, fmt.Errorf("%s has IPv4 on %s: %s %v", a[0], a[1], out, err))
		}
	}
	return errors.Join(all...)
}
