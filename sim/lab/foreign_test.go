package lab

import (
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/flow"
)

// testAnotherDisk: a disk with data is put into a machine that was cleaned, and
// into one that is deployed. Neither a deploy nor a clean touches it before
// somebody said so; what Ironring wrote itself it may overwrite.
func testAnotherDisk(t *testing.T, f *fixture) {
	exchange := func(n *node, serial string) {
		f.switchOff(t, n)
		n.machine.ExchangeDisk(0, serial)
		plant(t, n)
	}
	n := f.ready(t)
	exchange(n, "ANOTHER-"+n.name)
	f.fails(t, n, api.Event_EV_DEPLOY, f.image(n), api.State_ACTIVE, api.State_DEPLOY_FAILED,
		"nothing was written", "serial ANOTHER-"+n.name, "unknown data", "--wipe-existing")
	untouched(t, n)
	if got := readAt(t, n.machine.DiskPath(0), 0, len(planted)); string(got) != planted {
		t.Errorf("the head of the disk was changed")
	}
	if got := f.images.served(n.name); got != 0 {
		t.Errorf("%d bytes of the image were fetched", got)
	}
	args := f.image(n)
	args["wipe_existing"] = true
	f.does(t, n, api.Event_EV_DEPLOY, args, api.State_ACTIVE)
	f.does(t, n, api.Event_EV_REBUILD, f.image(n), api.State_ACTIVE) // ours now

	exchange(n, "THIRD-"+n.name)
	n.written = n.machine.Stats().Written
	f.fails(t, n, api.Event_EV_DELETE, nil, api.State_AVAILABLE, api.State_CLEAN_FAILED,
		"nothing was erased", "serial THIRD-"+n.name, "unknown data", "--wipe-existing")
	untouched(t, n)
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	f.does(t, n, api.Event_EV_PROVIDE, flow.CleanArgs{WipeExisting: true}, api.State_AVAILABLE)
	unbootable(t, n, 0)
}

// switchOff has the machine switched off by its node, as before its case is
// opened.
func (f *fixture) switchOff(t *testing.T, n *node) {
	t.Helper()
	f.says(t, 0, nil, "node", "power", n.name, "off", "--wait")
}
