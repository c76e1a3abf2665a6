package bmc_test

import (
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
)

// After a change of driver_info nothing is changed at a BMC, whoever asks, until
// it was asked who it is with just that driver_info.
func TestChangesNeedAVerifiedBMC(t *testing.T) {
	bubble(t, func(f *fixture) {
		a := f.access(f.c.Peer("p1"))
		facts, err := a.Identify(f.Context(), id)
		if err != nil {
			f.Fatal(err)
		}
		info := f.node().GetDriverInfo()
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id, Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: append([]byte(" "), info...)}}}})
		if facts.GetDriverRev() == f.node().GetDriverRev() {
			f.Fatal("what was read before counts as read since")
		}
		g := drivertest.NewGrant(time.Hour)
		for what, err := range map[string]error{
			"power":       a.SetPower(f.Context(), id, g, api.PowerAction_POWER_ACTION_OFF),
			"boot device": a.SetBootDevice(f.Context(), id, g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{}),
			"indicator":   a.SetIndicator(f.Context(), id, g, api.Indicator_INDICATOR_ON),
			"eject":       a.EjectMedia(f.Context(), id, g, ""),
			"nmi":         a.SendNMI(f.Context(), id, g),
		} {
			if errs.KindOf(err) != errs.Denied {
				f.Errorf("%s: %v", what, err)
			}
		}
		if f.bmc.Changes() != 0 {
			f.Errorf("%d changes", f.bmc.Changes())
		}
		again, err := a.Identify(f.Context(), id)
		if err != nil || again.GetDriverRev() != f.node().GetDriverRev() {
			f.Errorf("asked again: %v, %v", again, err)
		}
	})
}
