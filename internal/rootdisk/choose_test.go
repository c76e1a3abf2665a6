package rootdisk

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// disk is a plain SATA disk of 10 GiB.
func disk(name, serial string, more ...func(*agentproto.Disk)) agentproto.Disk {
	d := agentproto.Disk{Name: "/dev/" + name, SizeBytes: 10 << 30, Model: "QEMU HARDDISK", Serial: serial,
		ByPath: "/dev/disk/by-path/pci-" + name, Tran: "sata"}
	for _, f := range more {
		f(&d)
	}
	return d
}

func TestIneligible(t *testing.T) {
	for _, c := range []struct {
		want string
		d    agentproto.Disk
	}{
		{"", disk("sda", "a")},
		{"", disk("nvme0n1", "a")},
		{"", disk("mmcblk0", "a")},
		{"", disk("vda", "")},
		{"", disk("sda", "a", func(d *agentproto.Disk) { d.Vendor, d.Model = "VMware", "Virtual disk" })},
		{"usb", disk("sda", "a", func(d *agentproto.Disk) { d.Tran = "USB" })},
		{"removable", disk("sda", "a", func(d *agentproto.Disk) { d.Removable = true })},
		{"read-only", disk("sda", "a", func(d *agentproto.Disk) { d.ReadOnly = true })},
		{"no medium", disk("sda", "a", func(d *agentproto.Disk) { d.SizeBytes = 0 })},
		{"virtual media", disk("sda", "a", func(d *agentproto.Disk) { d.Vendor, d.Model = "iDRAC", "LCDRIVE" })},
		{"virtual media", disk("sda", "a", func(d *agentproto.Disk) { d.Vendor, d.Model = "AMI", "Virtual HDisk0" })},
		{"raid member (md127)", disk("sda", "a", func(d *agentproto.Disk) { d.Holders = []string{"md127"} })},
		{"multipath or mapped (dm-0)", disk("sda", "a", func(d *agentproto.Disk) { d.Holders = []string{"dm-0"} })},
		{"in use by bcache0", disk("sda", "a", func(d *agentproto.Disk) { d.Holders = []string{"bcache0"} })},
		{"multipath or mapped device", disk("dm-3", "a")},
		{"software RAID", disk("md127", "a")},
		{"not a disk", disk("loop0", "a")},
		{"not a disk", disk("sr0", "a")},
		{"boot area of an eMMC", disk("mmcblk0boot1", "a")},
		{"what the agent says", disk("sda", "a", func(d *agentproto.Disk) { d.Excluded = "what the agent says" })},
	} {
		if got := Ineligible(c.d); got != c.want {
			t.Errorf("%+v: %q, want %q", c.d, got, c.want)
		}
	}
}

func TestChooseTheOnlyCandidate(t *testing.T) {
	usb := disk("sda", "u", func(d *agentproto.Disk) { d.Tran = "usb" })
	small := disk("sdc", "s", func(d *agentproto.Disk) { d.SizeBytes = 4<<30 - 1 })
	for _, disks := range [][]agentproto.Disk{
		{disk("sdb", "b")},
		{usb, disk("sdb", "b"), small},
	} {
		d, err := Choose(disks, nil, Options{})
		if err != nil || d.Name != "/dev/sdb" {
			t.Errorf("%v: %s, %v", disks, d.Name, err)
		}
	}
	if _, err := Choose([]agentproto.Disk{disk("sdb", "b"), small}, nil, Options{MinBytes: 1 << 30}); err == nil {
		t.Error("with a limit of 1 GiB there are two candidates")
	}
}

// The message is what an operator pastes from: it is checked as a whole.
func TestRefusalListsDisksAndHints(t *testing.T) {
	disks := []agentproto.Disk{
		disk("sda", "QM1", func(d *agentproto.Disk) { d.WWN = "0x5000c500a1b2c3d4" }),
		disk("sdb", "", func(d *agentproto.Disk) { d.WWN = "0x5000c500ffffffff" }),
		disk("sdc", `s== "x"`, func(d *agentproto.Disk) { d.SizeBytes = 2 << 40 }),
		disk("sdd", "TWIN"),
		disk("sde", "twin"),
		disk("sdf", "USB", func(d *agentproto.Disk) { d.Tran = "usb" }),
	}
	_, err := Choose(disks, nil, Options{})
	want := `the machine has 5 disks and no root device hint says which one to write; set one of:
  /dev/sda (10.0 GiB, serial QM1, wwn 0x5000c500a1b2c3d4, model QEMU HARDDISK): properties/root_device={"serial":"QM1"} or --root-device 'serial=QM1'
  /dev/sdb (10.0 GiB, serial -, wwn 0x5000c500ffffffff, model QEMU HARDDISK): properties/root_device={"wwn":"0x5000c500ffffffff"} or --root-device 'wwn=0x5000c500ffffffff'
  /dev/sdc (2.0 TiB, serial s== "x", wwn -, model QEMU HARDDISK): properties/root_device={"serial":"s== s== \"x\""} or --root-device 'serial=s== s== "x"'
  /dev/sdd (10.0 GiB, serial TWIN, wwn -, model QEMU HARDDISK): properties/root_device={"by_path":"/dev/disk/by-path/pci-sdd"} or --root-device 'by_path=/dev/disk/by-path/pci-sdd'
  /dev/sde (10.0 GiB, serial twin, wwn -, model QEMU HARDDISK): properties/root_device={"by_path":"/dev/disk/by-path/pci-sde"} or --root-device 'by_path=/dev/disk/by-path/pci-sde'`
	if !errors.Is(err, errs.Invalid) || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestArgument(t *testing.T) {
	for expr, want := range map[string]string{
		"QM1":      `'serial=QM1'`,
		"it's":     `'serial=it'\''s'`,
		"@home":    `'serial:="@home"'`,
		"env:HOME": `'serial:="env:HOME"'`,
		"-":        `'serial:="-"'`,
	} {
		if got := argument("serial", expr); got != want {
			t.Errorf("%s: %s, not %s", expr, got, want)
		}
	}
}

func TestChooseByHints(t *testing.T) {
	disks := []agentproto.Disk{
		disk("sda", "A"),
		disk("sdb", "B", func(d *agentproto.Disk) { d.SizeBytes = 100 << 30; d.Rotational = true }),
		disk("sdc", "C", func(d *agentproto.Disk) { d.SizeBytes = 1 << 30 }),
		disk("sdd", "D", func(d *agentproto.Disk) { d.Tran = "usb" }),
	}
	for _, c := range []struct{ hints, want, err string }{
		{`{"serial":"a"}`, "/dev/sda", ""},
		{`{"size":">= 50"}`, "/dev/sdb", ""},
		{`{"rotational":true}`, "/dev/sdb", ""},
		{`{"serial":"<or> B <or> C"}`, "/dev/sdb", ""}, // C is too small
		{`{"tran":"<or> sata <or> usb"}`, "", "hints fit 2 disks"},
		{`{"serial":"D"}`, "", "/dev/sdd (10.0 GiB, serial D, wwn -, model QEMU HARDDISK) is excluded: usb"},
		{`{"serial":"C"}`, "", "too small (less than 4.0 GiB)"},
		{`{"serial":"X"}`, "", "fit none of the machine's disks; use one of:\n  /dev/sda"},
		{`{"x":"X"}`, "", "there is no such hint"},
	} {
		d, err := Choose(disks, []byte(c.hints), Options{})
		if d.Name != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.hints, d.Name, err)
		}
	}
}

func TestNoCandidate(t *testing.T) {
	if _, err := Choose(nil, nil, Options{}); !errors.Is(err, errs.Invalid) {
		t.Errorf("%v", err)
	}
	_, err := Choose([]agentproto.Disk{disk("sda", "a", func(d *agentproto.Disk) { d.ReadOnly = true })}, nil, Options{})
	if err == nil || !strings.Contains(err.Error(), "no disk can be the root disk: /dev/sda (10.0 GiB, serial a, wwn -, model QEMU HARDDISK) is excluded: read-only") {
		t.Errorf("%v", err)
	}
}

func TestTwoPathsToOneUnit(t *testing.T) {
	path := func(d *agentproto.Disk) { d.WWN = "0x600" }
	disks := []agentproto.Disk{disk("sda", "L", path), disk("sdb", "L", path)}
	if _, err := Choose(disks, nil, Options{}); err == nil || !strings.Contains(err.Error(), "multipath (same WWN as /dev/sdb)") {
		t.Errorf("%v", err)
	}
	// Two units of one array: the extension tells them apart.
	disks[0].WWNExt, disks[1].WWNExt, disks[1].Serial = "0x6001", "0x6002", "M"
	if _, err := Choose(disks, []byte(`{"serial":"L"}`), Options{}); err != nil {
		t.Errorf("%v", err)
	}
}

func TestChosenDiskMustBeRecognisable(t *testing.T) {
	bare := agentproto.Disk{Name: "/dev/vda", SizeBytes: 10 << 30}
	if _, err := Choose([]agentproto.Disk{bare}, nil, Options{}); err == nil || !strings.Contains(err.Error(), "no serial, no wwn and no path") {
		t.Errorf("%v", err)
	}
	bare.ByPath = "pci-1"
	if _, err := Choose([]agentproto.Disk{bare}, nil, Options{}); err != nil {
		t.Error(err)
	}
}

func TestMatch(t *testing.T) {
	a := disk("sda", "A", func(d *agentproto.Disk) { d.WWN = "0x5000" })
	b := disk("sdb", "B")
	renamed := a
	renamed.Name, renamed.ByPath = "/dev/sdb", "elsewhere"
	for _, c := range []struct {
		why   string
		id    agentproto.DiskID
		disks []agentproto.Disk
		want  error
	}{
		{"same", ID(a), []agentproto.Disk{b, a}, nil},
		{"another name", ID(a), []agentproto.Disk{b, renamed}, nil},
		{"another WWN", agentproto.DiskID{Serial: "A", WWN: "0x5001"}, []agentproto.Disk{a, b}, errs.NotFound},
		{"another serial", agentproto.DiskID{Serial: "Z", WWN: "0x5000"}, []agentproto.Disk{a, b}, errs.NotFound},
		{"another size", agentproto.DiskID{Serial: "A", SizeBytes: 1}, []agentproto.Disk{a, b}, errs.NotFound},
		{"two of one serial", agentproto.DiskID{Serial: "A"}, []agentproto.Disk{a, renamed}, errs.Invalid},
		{"by place", agentproto.DiskID{ByPath: "p", SizeBytes: 5}, []agentproto.Disk{a, {Name: "x", ByPath: "p", SizeBytes: 5}}, nil},
		{"place but other size", agentproto.DiskID{ByPath: "p", SizeBytes: 5}, []agentproto.Disk{{ByPath: "p", SizeBytes: 6}}, errs.NotFound},
		{"name alone", agentproto.DiskID{Name: "/dev/sda", SizeBytes: 10 << 30}, []agentproto.Disk{a}, errs.Invalid},
		{"nothing", agentproto.DiskID{}, []agentproto.Disk{a}, errs.Invalid},
		{"no disks", ID(a), nil, errs.NotFound},
		{"zeros are no WWN", agentproto.DiskID{WWN: "0x0000", SizeBytes: 10 << 30}, []agentproto.Disk{{WWN: "0x0000", SizeBytes: 10 << 30}}, errs.Invalid},
	} {
		d, err := Match(c.id, c.disks)
		if !errors.Is(err, c.want) || err == nil && d.Serial != c.id.Serial {
			t.Errorf("%s: %+v, %v", c.why, d, err)
		}
	}
}

func anyDisks() *rapid.Generator[[]agentproto.Disk] {
	return rapid.Custom(func(t *rapid.T) []agentproto.Disk {
		n := rapid.IntRange(0, 6).Draw(t, "n")
		disks := make([]agentproto.Disk, n)
		for i := range disks {
			disks[i] = agentproto.Disk{
				Name:      fmt.Sprintf("/dev/sd%c", 'a'+i),
				SizeBytes: uint64(rapid.IntRange(0, 8).Draw(t, "gib")) << 30,
				Serial:    rapid.SampledFrom([]string{"", "A", "a", "B", "s== C", "<in> D", "0"}).Draw(t, "serial"),
				WWN:       rapid.SampledFrom([]string{"", "", "0x1", "0x2", "0x0"}).Draw(t, "wwn"),
				ByPath:    rapid.SampledFrom([]string{"", fmt.Sprintf("pci-%d", i)}).Draw(t, "path"),
				Tran:      rapid.SampledFrom([]string{"sata", "usb", "nvme"}).Draw(t, "tran"),
				ReadOnly:  rapid.IntRange(0, 9).Draw(t, "ro") == 0,
			}
		}
		return disks
	})
}

var pasted = regexp.MustCompile(`properties/root_device=(\{.*\})`)

func TestChooseLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disks := anyDisks().Draw(t, "disks")
		hints := rapid.SampledFrom([]string{"", `{"serial":"A"}`, `{"size":">= 5"}`, `{"tran":"s!= usb"}`}).Draw(t, "hints")
		d, err := Choose(disks, []byte(hints), Options{})
		shuffled, err2 := Choose(rapid.Permutation(disks).Draw(t, "order"), []byte(hints), Options{})
		if (err == nil) != (err2 == nil) || d.Name != shuffled.Name {
			t.Fatalf("the order decides: %s (%v) or %s (%v)", d.Name, err, shuffled.Name, err2)
		}
		if err != nil {
			// Each hint of the message, pasted, is understood and means one candidate.
			for _, m := range pasted.FindAllStringSubmatch(err.Error(), -1) {
				if d, err := Choose(disks, []byte(m[1]), Options{}); err != nil && !strings.Contains(err.Error(), "recognised") {
					t.Fatalf("pasted %s: %s, %v", m[1], d.Name, err)
				}
			}
			return
		}
		if Ineligible(d) != "" || d.SizeBytes < DefaultMinBytes {
			t.Fatalf("chose %+v", d)
		}
		if again, err := Match(ID(d), disks); err != nil || again.Name != d.Name {
			t.Fatalf("Match: %s, %v", again.Name, err)
		}
		for i, why := range reasons(disks, Options{}) {
			if hints == "" && why == "" && disks[i].Name != d.Name {
				t.Fatalf("chose %s without hints, %s is a candidate too", d.Name, disks[i].Name)
			}
		}
	})
}
