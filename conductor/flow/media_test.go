package flow

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers/fake"
)

// A node that boots from virtual media gets a medium of its nonce, boots from
// it once, and the drive is empty when the ramdisk is done with. The machine
// of this rig boots a CD only if the medium is that of its current nonce.
func TestBootFromVirtualMedia(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"driver_info"}, Node: &api.Node{
			DriverInfo: []byte(`{"boot_interface":"virtual-media"}`),
		}}}})
		m := r.c.Store.View().Member("p1")
		r.c.Must(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{
			Id: m.GetId(), Drivers: m.GetDrivers(), Phase: m.GetPhase(), FeatureLevel: m.GetFeatureLevel(), Weight: m.GetWeight(), AgentAddress: m.GetAgentAddress(), BootAddress: "192.0.2.1:7484",
		}}}})
		r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
		r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
		r.does(api.Event_EV_DEPLOY, api.State_ACTIVE)
		inserted, devices := r.media()
		if inserted != r.boots() || inserted == 0 {
			r.Errorf("%d media inserted for %d boots of the ramdisk", inserted, r.boots())
		}
		if strings.Contains(devices, "PXE") || !strings.HasSuffix(devices, "CDROM DISK ") {
			r.Errorf("boot devices %s", devices)
		}
		for _, s := range mustMedia(r) {
			if s.GetInserted() {
				r.Errorf("the drive still holds %s", s.GetImage())
			}
		}
		r.deployed()
	})
}

// media counts the media that were inserted and lists the boot devices set.
func (r *rig) media() (inserted int, devices string) {
	for _, c := range r.bmc.Calls() {
		switch c.Verb {
		case fake.InsertMedia:
			inserted++
			if !strings.HasPrefix(c.Image, "http://192.0.2.1:7484/media/"+nodeID+"/") || !strings.HasSuffix(c.Image, ".iso") {
				r.Errorf("medium %s", c.Image)
			}
		case fake.SetBootDevice:
			devices += strings.TrimPrefix(c.Device.String(), "BOOT_DEVICE_") + " "
		}
	}
	return inserted, devices
}

func mustMedia(r *rig) []*api.VirtualMedia {
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	r.mu.Lock()
	s := r.stacks["p1"]
	r.mu.Unlock()
	all, err := s.engine.cfg.BMC.Media(ctx, nodeID)
	if err != nil {
		r.Fatal(err)
	}
	return all
}
