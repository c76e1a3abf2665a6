package flow

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A clean erases nothing while there is data on the disks that this cluster
// did not put there, until it is told that the data may go.
func TestFirstCleanHolds(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Disks = []agentproto.Disk{
			{Name: "/dev/sda", Serial: "S1", SizeBytes: 100e9, Tran: "sata", Contents: []string{}},
			{Name: "/dev/sdb", Serial: "S2", SizeBytes: 200e9, Tran: "sata", Contents: []string{"GPT", "ext"}},
		}
	}, func(r *rig) {
		erasures := func(want int) {
			r.Helper()
			if n := len(r.machine.Begun(agentproto.CmdEraseMetadata)); n != want {
				r.Errorf("%d erasures were begun, want %d", n, want)
			}
		}
		r.start("p1")
		r.enrol("p1")
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		r.begin(api.Event_EV_PROVIDE)
		r.idle(10 * time.Minute)
		r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
		for _, w := range []string{"nothing was erased", "/dev/sdb (S2, 200.0 GB): GPT, ext", "ironring node provide " + nodeID + " --wipe-existing"} {
			if e := r.node().GetLastError(); !strings.Contains(e, w) || strings.Contains(e, "sda") {
				r.Errorf("%q is not in %q, or sda is", w, e)
			}
		}
		erasures(0)
		r.begin(api.Event_EV_MANAGE)
		steps, err := node.Plan(api.FlowKind_FLOW_CLEAN, api.PowerAction_POWER_ACTION_NONE)
		if err != nil {
			r.Fatal(err)
		}
		r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Event: api.Event_EV_PROVIDE, Flow: &api.Flow{
			Id: uuid.NewString(), NodeId: nodeID, Kind: api.FlowKind_FLOW_CLEAN, Steps: steps, Args: []byte(`{"wipe_existing":true}`)}}}})
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		erasures(1)
		// Both disks are ours from now on: what lies on them we let be put there.
		r.begin(api.Event_EV_MANAGE)
		r.begin(api.Event_EV_PROVIDE)
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		erasures(2)
	})
}

func TestStrangeData(t *testing.T) {
	data := []string{"GPT"}
	disk := func(serial string, contents []string) agentproto.Disk {
		return agentproto.Disk{Name: "/dev/" + serial, Serial: serial, SizeBytes: 1e9, Tran: "sata", Contents: contents}
	}
	for _, c := range []struct {
		name  string
		disks []agentproto.Disk
		n     *api.Node
		want  []string
	}{
		{"blank", []agentproto.Disk{disk("a", []string{})}, &api.Node{}, nil},
		{"data", []agentproto.Disk{disk("a", data)}, &api.Node{}, []string{"/dev/a (a, 1.0 GB): GPT"}},
		{"not known", []agentproto.Disk{disk("a", nil)}, &api.Node{}, []string{"/dev/a (a, 1.0 GB): not known what"}},
		{"erased before", []agentproto.Disk{disk("a", data)}, &api.Node{Erasure: &api.Erasure{Disks: []string{"a"}}}, nil},
		{"added since", []agentproto.Disk{disk("a", data), disk("b", data)}, &api.Node{Erasure: &api.Erasure{Disks: []string{"a"}}}, []string{"/dev/b (b, 1.0 GB): GPT"}},
		{"deployed before", []agentproto.Disk{disk("a", data)}, &api.Node{RootDisk: &api.RootDisk{Name: "/dev/x", Serial: "a"}}, nil},
		{"other serial", []agentproto.Disk{disk("a", data)}, &api.Node{RootDisk: &api.RootDisk{Name: "/dev/a", Serial: "z"}}, []string{"/dev/a (a, 1.0 GB): GPT"}},
		{"nothing to tell it by", []agentproto.Disk{{Name: "/dev/a", SizeBytes: 1e9, Tran: "sata", Contents: data}}, &api.Node{RootDisk: &api.RootDisk{Name: "/dev/a", SizeBytes: 2e9}}, []string{"/dev/a (/dev/a, 1.0 GB): GPT"}},
		{"never touched", []agentproto.Disk{{Name: "/dev/a", SizeBytes: 1e9, Tran: "usb", Contents: data}, {Name: "/dev/b", ReadOnly: true, Tran: "sata", Contents: data}}, &api.Node{}, nil},
	} {
		if got := strangeData(c.disks, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCleanArgs(t *testing.T) {
	for doc, want := range map[string]bool{"": false, "{}": false, `{"wipe_existing":false}`: false, `{"wipe_existing":true}`: true} {
		if got, err := ParseCleanArgs([]byte(doc)); err != nil || got.WipeExisting != want {
			t.Errorf("%q: %v, %v", doc, got, err)
		}
	}
	for _, doc := range []string{`{"wipe":true}`, `{"wipe_existing":"yes"}`, `[]`, `{`} {
		if _, err := ParseCleanArgs([]byte(doc)); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%q: %v", doc, err)
		}
	}
}
