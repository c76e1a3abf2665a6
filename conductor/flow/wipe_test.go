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
		// Both disks are blank from now on.
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
	tenant := func(n *api.Node) *api.Node {
		n.RootDisk = &api.RootDisk{Written: true, Handed: true, Serial: "R", SizeBytes: 1 << 30}
		return n
	}
	root := func(d agentproto.Disk, change func(*api.RootDisk)) *api.Node {
		r := &api.RootDisk{Name: "/dev/x", Serial: d.Serial, Wwn: d.WWN, ByPath: d.ByPath, Model: d.Model, SizeBytes: d.SizeBytes}
		change(r)
		return &api.Node{RootDisk: r}
	}
	written := func(r *api.RootDisk) { r.Written = true }
	for _, c := range []struct {
		name   string
		disks  disks
		n      *api.Node
		clean  string // the names of those that are strange to a clean
		deploy string // and to a deploy
	}{
		{"blank", disks{disk("sda", "A", "", []string{})}, &api.Node{}, "", ""},
		{"data", disks{a}, &api.Node{}, "/dev/sda", "/dev/sda"},
		{"could not be read", disks{disk("sda", "A", "", nil)}, &api.Node{}, "/dev/sda", "/dev/sda"},
		{"in a RAID that is assembled, and that a clean stops", disks{held}, &api.Node{}, "/dev/sda", "/dev/sda"},
		{"erased before, blank still", disks{disk("sda", "A", "", []string{})}, erased(a), "", ""},
		{"erased before, filled since", disks{a}, erased(a), "/dev/sda", "/dev/sda"},
		{"erased before, not readable now", disks{disk("sda", "A", "", nil)}, erased(a), "/dev/sda", "/dev/sda"},
		{"a tenant's, erased before", disks{a}, tenant(erased(a)), "", "/dev/sda"},
		{"a tenant's, under another name", disks{disk("sdz", "A", "", data)}, tenant(erased(a)), "", "/dev/sdz"},
		{"a tenant's, not readable now", disks{disk("sda", "A", "", nil)}, tenant(erased(a)), "", "/dev/sda"},
		{"erased by a version that kept labels", disks{a}, tenant(&api.Node{Erasure: &api.Erasure{Disks: []string{"A", "/dev/sda"}}}), "/dev/sda", "/dev/sda"},
		{"added since", disks{a, disk("sdb", "B", "", data)}, tenant(erased(a)), "/dev/sdb", "/dev/sda /dev/sdb"},
		{"another under the name", disks{disk("sda", "B", wwn, data)}, tenant(erased(a)), "/dev/sda", "/dev/sda"},
		{"another WWN", disks{disk("sda", "A", "0x5000c500ffffffff", data)}, tenant(erased(disk("sda", "A", wwn, data))), "/dev/sda", "/dev/sda"},
		{"a WWN where none was", disks{disk("sda", "A", wwn, data)}, tenant(erased(a)), "/dev/sda", "/dev/sda"},
		{"another serial", disks{disk("sda", "B", wwn, data)}, tenant(erased(disk("sda", "A", wwn, data))), "/dev/sda", "/dev/sda"},
		{"another size", disks{larger}, tenant(erased(a)), "/dev/sda", "/dev/sda"},
		{"tells nothing of itself", disks{bare}, tenant(erased(bare)), "/dev/sda", "/dev/sda"},
		{"zeros tell nothing", disks{disk("sda", "0000", "0x0", data)}, tenant(erased(disk("sda", "0000", "0x0", data))), "/dev/sda", "/dev/sda"},
		{"tells its WWN only", disks{disk("sda", "", wwn, data)}, tenant(erased(disk("sda", "", wwn, data))), "", "/dev/sda"},
		{"twins", disks{a, disk("sdb", "A", "", data)}, tenant(erased(a)), "/dev/sda /dev/sdb", "/dev/sda /dev/sdb"},
		{"twins, both erased", disks{a, disk("sdb", "a ", "", data)}, tenant(erased(a, disk("sdb", "a ", "", data))), "/dev/sda /dev/sdb", "/dev/sda /dev/sdb"},
		{"twin without WWN", disks{disk("sda", "A", wwn, data), a}, tenant(erased(a)), "/dev/sda /dev/sda", "/dev/sda /dev/sda"},
		{"name spaces of one drive", disks{disk("n1", "A", "eui.1", data), disk("n2", "A", "eui.2", data)}, tenant(erased(disk("n1", "A", "eui.1", data))), "/dev/n2", "/dev/n1 /dev/n2"},
		{"deployed to before", disks{a}, root(a, written), "", ""},
		{"deployed to, not readable now", disks{disk("sda", "A", "", nil)}, root(a, written), "", ""},
		{"chosen and never written", disks{a}, root(a, func(*api.RootDisk) {}), "/dev/sda", "/dev/sda"},
		{"begun to be written", disks{a}, root(a, func(r *api.RootDisk) { r.BegunCmd = "c" }), "", ""},
		{"written before another one", disks{a}, root(disk("sdb", "B", "", nil), func(r *api.RootDisk) { r.Before = []*api.DiskRecord{{Serial: "A", SizeBytes: 1 << 30}} }), "", ""},
		{"deployed to another", disks{a}, root(disk("sda", "Z", "", nil), written), "/dev/sda", "/dev/sda"},
		{"deployed to, tells nothing", disks{bare}, root(bare, written), "/dev/sda", "/dev/sda"},
		{"begun, tells nothing", disks{bare}, root(bare, func(r *api.RootDisk) { r.BegunCmd = "c" }), "/dev/sda", "/dev/sda"},
		{"never touched", disks{
			{Name: "/dev/a", SizeBytes: 1e9, Tran: "usb", Contents: data}, {Name: "/dev/b", ReadOnly: true, Tran: "sata", Contents: data},
		}, &api.Node{}, "", ""},
	} {
		for of, want := range map[string]string{"clean": c.clean, "deploy": c.deploy} {
			known := ownership{c.n}.ofTenant
			if of == "deploy" {
				known = ownership{c.n}.written
			}
			var got []string
			for _, text := range strangeData(rootdisk.Wipeable(c.disks), c.disks, known) {
				name, _, _ := strings.Cut(text, " ")
				got = append(got, name)
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("%s, %s: %q, want %q", c.name, of, s, want)
			}
		}
	}
	got := strangeData(disks{a, disk("sdb", "B", "", nil)}, nil, ownership{}.ofTenant)
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
