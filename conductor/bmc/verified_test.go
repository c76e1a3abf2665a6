package bmc_test

import (
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
)

// Nothing is changed at a BMC, whoever asks, unless who it is was read with just
// the driver_info that the node has, and is on record.
func TestChangesNeedAVerifiedBMC(t *testing.T) {
	bubble(t, func(f *fixture) {
		a := f.access(f.c.Peer("p1"))
		g := drivertest.NewGrant(time.Hour)
		refused := func(when string) {
			f.Helper()
			for what, err := range map[string]error{
				"power":       a.SetPower(f.Context(), id, g, api.PowerAction_POWER_ACTION_OFF),
				"boot device": a.SetBootDevice(f.Context(), id, g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{}),
				"indicator":   a.SetIndicator(f.Context(), id, g, api.Indicator_INDICATOR_ON),
				"eject":       a.EjectMedia(f.Context(), id, g, ""),
				"nmi":         a.SendNMI(f.Context(), id, g),
			} {
				if errs.KindOf(err) != errs.Denied {
					f.Errorf("%s, %s: %v", when, what, err)
				}
			}
			if f.bmc.Changes() != 0 {
				f.Errorf("%s: %d changes", when, f.bmc.Changes())
			}
		}
		refused("never asked")
		facts, err := a.Identify(f.Context(), id)
		if err != nil {
			f.Fatal(err)
		}
		refused("asked, and not on record")
		f.verify()
		info := f.node().GetDriverInfo()
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id, Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: append([]byte(" "), info...)}}}})
		if facts.GetDriverRev() == f.node().GetDriverRev() {
			f.Fatal("what was read before counts as read since")
		}
		refused("with new driver_info")
		again, err := a.Identify(f.Context(), id)
		if err != nil || again.GetDriverRev() != f.node().GetDriverRev() {
			f.Errorf("asked again: %v, %v", again, err)
		}
	})
}
