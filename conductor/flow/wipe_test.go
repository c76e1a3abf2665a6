package flow

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
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
		for _, w := range []string{"nothing was erased", "/dev/sdb (186.3 GiB, serial S2, wwn -, model -): GPT, ext", "ironring node provide " + nodeID + " --wipe-existing"} {
			if e := r.node().GetLastError(); !strings.Contains(e, w) || strings.Contains(e, "sda") {
				r.Errorf("%q is not in %q, or sda is", w, e)
			}
		}
		erasures(0)
		r.begin(api.Event_EV_MANAGE)
		r.beginWith(api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true})
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
	const wwn = "0x5000c500a1b2c3d4"
	type disks []agentproto.Disk
	disk := func(name, serial, wwn string, contents []string) agentproto.Disk {
		return agentproto.Disk{Name: "/dev/" + name, Model: "M", Serial: serial, WWN: wwn, SizeBytes: 1 << 30, Tran: "sata", Contents: contents}
	}
	erased := func(list ...agentproto.Disk) *api.Node {
		n := &api.Node{Erasure: &api.Erasure{}}
		for _, d := range list {
			n.Erasure.Disks = append(n.Erasure.Disks, label(rootdisk.ID(d)))
			n.Erasure.Erased = append(n.Erasure.Erased, &api.DiskRecord{Name: d.Name, Serial: d.Serial, Wwn: d.WWN, ByPath: d.ByPath, Model: d.Model, SizeBytes: d.SizeBytes})
		}
		return n
	}
	a, larger := disk("sda", "A", "", data), disk("sda", "A", "", data)
	larger.SizeBytes *= 2
	bare := agentproto.Disk{Name: "/dev/sda", Model: "M", ByPath: "pci-1", SizeBytes: 1 << 30, Tran: "sata", Contents: data}
	held := disk("sda", "A", "", data)
	held.Holders, held.Excluded = []string{"md127"}, "raid member (md127)"
	for _, c := range []struct {
		name  string
		disks disks
		n     *api.Node
		want  string // the names of those that are strange
	}{
		{"blank", disks{disk("sda", "A", "", []string{})}, &api.Node{}, ""},
		{"data", disks{a}, &api.Node{}, "/dev/sda"},
		{"could not be read", disks{disk("sda", "A", "", nil)}, &api.Node{}, "/dev/sda"},
		{"in a RAID that is assembled, and that a clean stops", disks{held}, &api.Node{}, "/dev/sda"},
		{"erased before", disks{a}, erased(a), ""},
		{"erased before, under another name", disks{disk("sdz", "A", "", data)}, erased(a), ""},
		{"erased before, not readable now", disks{disk("sda", "A", "", nil)}, erased(a), ""},
		{"erased by a version that kept labels", disks{a}, &api.Node{Erasure: &api.Erasure{Disks: []string{"A", "/dev/sda"}}}, "/dev/sda"},
		{"added since", disks{a, disk("sdb", "B", "", data)}, erased(a), "/dev/sdb"},
		{"another under the name", disks{disk("sda", "B", wwn, data)}, erased(a), "/dev/sda"},
		{"another WWN", disks{disk("sda", "A", "0x5000c500ffffffff", data)}, erased(disk("sda", "A", wwn, data)), "/dev/sda"},
		{"a WWN where none was", disks{disk("sda", "A", wwn, data)}, erased(a), "/dev/sda"},
		{"another serial", disks{disk("sda", "B", wwn, data)}, erased(disk("sda", "A", wwn, data)), "/dev/sda"},
		{"another size", disks{larger}, erased(a), "/dev/sda"},
		{"tells nothing of itself", disks{bare}, erased(bare), "/dev/sda"},
		{"zeros tell nothing", disks{disk("sda", "0000", "0x0", data)}, erased(disk("sda", "0000", "0x0", data)), "/dev/sda"},
		{"tells its WWN only", disks{disk("sda", "", wwn, data)}, erased(disk("sda", "", wwn, data)), ""},
		{"twins", disks{a, disk("sdb", "A", "", data)}, erased(a), "/dev/sda /dev/sdb"},
		{"twins, both erased", disks{a, disk("sdb", "a ", "", data)}, erased(a, disk("sdb", "a ", "", data)), "/dev/sda /dev/sdb"},
		{"twin without WWN", disks{disk("sda", "A", wwn, data), a}, erased(a), "/dev/sda /dev/sda"},
		{"name spaces of one drive", disks{disk("n1", "A", "eui.1", data), disk("n2", "A", "eui.2", data)}, erased(disk("n1", "A", "eui.1", data)), "/dev/n2"},
		{"deployed to before", disks{a}, &api.Node{RootDisk: &api.RootDisk{Written: true, Name: "/dev/x", Serial: "A", SizeBytes: 1 << 30}}, ""},
		{"chosen and never written", disks{a}, &api.Node{RootDisk: &api.RootDisk{Name: "/dev/x", Serial: "A", SizeBytes: 1 << 30}}, "/dev/sda"},
		{"deployed to another", disks{a}, &api.Node{RootDisk: &api.RootDisk{Written: true, Name: "/dev/sda", Serial: "Z", SizeBytes: 1 << 30}}, "/dev/sda"},
		{"deployed to, tells nothing", disks{bare}, &api.Node{RootDisk: &api.RootDisk{Written: true, Name: "/dev/sda", ByPath: "pci-1", Model: "M", SizeBytes: 1 << 30}}, "/dev/sda"},
		{"never touched", disks{
			{Name: "/dev/a", SizeBytes: 1e9, Tran: "usb", Contents: data}, {Name: "/dev/b", ReadOnly: true, Tran: "sata", Contents: data},
		}, &api.Node{}, ""},
	} {
		var got []string
		for _, text := range strangeData(rootdisk.Wipeable(c.disks), c.disks, c.n) {
			name, _, _ := strings.Cut(text, " ")
			got = append(got, name)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
	got := strangeData(disks{a, disk("sdb", "B", "", nil)}, nil, &api.Node{})
	want := []string{"/dev/sda (1.0 GiB, serial A, wwn -, model M): GPT", "/dev/sdb (1.0 GiB, serial B, wwn -, model M): not known what, it could not be read"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
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
