package rootdisk

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

func holding(what ...string) func(*agentproto.Disk) {
	return func(d *agentproto.Disk) { d.Contents = append([]string{}, what...) }
}

func wwn(s string) func(*agentproto.Disk) { return func(d *agentproto.Disk) { d.WWN = s } }

func TestToErase(t *testing.T) {
	type disks = []agentproto.Disk
	a, b := disk("sda", "A", holding()), disk("sdb", "B", holding("GPT"))
	usb := disk("sdu", "U", func(d *agentproto.Disk) { d.Tran = "usb" })
	renamed := a
	renamed.Name = "/dev/sdq"
	twin1, twin2 := disk("sda", "T", holding()), disk("sdb", "T", holding())
	swapped1, swapped2 := twin1, twin2
	swapped1.Name, swapped2.Name = twin2.Name, twin1.Name
	bare := agentproto.Disk{Name: "/dev/vda", SizeBytes: 1 << 30, Contents: []string{}}
	other := bare
	other.Name = "/dev/vdb"
	held := disk("sda", "A", holding("linux md"), func(d *agentproto.Disk) { d.Holders, d.Excluded = []string{"md127"}, "raid member (md127)" })
	free := disk("sda", "A", holding("linux md"))
	for _, c := range []struct {
		name        string
		judged, now disks
		want        string // of error; else names that are erased
		kind        error
	}{
		{"the same", disks{a, b, usb}, disks{a, b, usb}, "/dev/sda /dev/sdb", nil},
		{"another order and name", disks{a, b}, disks{b, renamed}, "/dev/sdq /dev/sdb", nil},
		{"a RAID was stopped", disks{held}, disks{free}, "/dev/sda", nil},
		{"twins", disks{twin1, twin2}, disks{swapped2, swapped1}, "/dev/sdb /dev/sda", nil},
		{"tell nothing", disks{bare, other}, disks{other, bare}, "/dev/vda /dev/vdb", nil},
		{"less on it", disks{b}, disks{disk("sdb", "B", holding())}, "/dev/sdb", nil},
		{"it was not known what lay on it", disks{disk("sdb", "B")}, disks{b}, "/dev/sdb", nil},
		{"one more", disks{a}, disks{a, b}, "/dev/sdb (10.0 GiB, serial B, wwn -, model QEMU HARDDISK) was not there then and holds: GPT", errs.Denied},
		{"one more that cannot be read", disks{a}, disks{a, disk("sdb", "B")}, "holds: not known what", errs.Denied},
		{"one more, blank", disks{b}, disks{a, b}, "serial A, wwn -, model QEMU HARDDISK) was not there then and holds: nothing", errs.Denied},
		{"could be erased by now", disks{a, disk("sdb", "B", func(d *agentproto.Disk) { d.ReadOnly = true })}, disks{a, b}, "serial B", errs.Denied},
		{"one less", disks{a, b}, disks{a}, "/dev/sdb (10.0 GiB, serial B, wwn -, model -) is not there any more", errs.Denied},
		{"another serial", disks{a}, disks{disk("sda", "Z", holding())}, "serial A, wwn -, model -) is not there any more", errs.Denied},
		{"a WWN where none was", disks{a}, disks{disk("sda", "A", holding(), wwn("0x5"))}, "not there any more", errs.Denied},
		{"another size", disks{a}, disks{disk("sda", "A", holding(), func(d *agentproto.Disk) { d.SizeBytes++ })}, "not there any more", errs.Denied},
		{"another twin", disks{twin1}, disks{twin1, twin2}, "serial T", errs.Denied},
		{"at that place something else without a name", disks{bare}, disks{other}, "not there any more", errs.Denied},
		{"more on it", disks{b}, disks{disk("sdb", "B", holding("GPT", "ext"))}, "holds what it did not hold: ext", errs.Denied},
		{"not readable any more", disks{a}, disks{disk("sda", "A")}, "could not be read", errs.Denied},
		{"read-only by now", disks{a}, disks{disk("sda", "A", holding(), func(d *agentproto.Disk) { d.ReadOnly = true })}, "may not be written any more: read-only", errs.Denied},
		{"nothing to erase", disks{usb}, disks{usb}, "no disk that may be erased: /dev/sdu: usb", errs.Invalid},
		{"twice in the list", disks{a, a}, disks{a}, "not there any more", errs.Denied},
	} {
		got, skipped, err := ToErase(Judge(c.judged), c.now)
		if c.kind != nil {
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || got != nil {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
			continue
		}
		var names []string
		for _, d := range got {
			names = append(names, d.Name)
		}
		if err != nil || strings.Join(names, " ") != c.want || len(got)+len(skipped) != len(c.now) {
			t.Errorf("%s: %v, skipped %v, %v", c.name, names, skipped, err)
		}
	}
}

// Whatever was judged and whatever the machine has then: all or nothing, and
// nothing that was not in the list.
func TestToEraseLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := anyDisks().Draw(t, "was")
		for i := range was {
			was[i].Contents = rapid.SampledFrom([][]string{nil, {}, {"GPT"}}).Draw(t, "contents")
		}
		now := slices.Clone(was)
		if rapid.Bool().Draw(t, "changed") {
			now = append(now, anyDisks().Draw(t, "more")...)
			now = slices.DeleteFunc(now, func(agentproto.Disk) bool { return rapid.IntRange(0, 4).Draw(t, "gone") == 0 })
		}
		list := Judge(was)
		got, _, err := ToErase(list, rapid.Permutation(now).Draw(t, "order"))
		if err != nil {
			if got != nil {
				t.Fatalf("%v with %v", got, err)
			}
			return
		}
		if len(got) != len(list) {
			t.Fatalf("%d disks of a list of %d", len(got), len(list))
		}
		for i, d := range got {
			j := list[i]
			if identity(j.Serial) != identity(d.Serial) || identity(j.WWN) != identity(d.WWN) || j.SizeBytes != d.SizeBytes || Unseen(j.Contents, d.Contents) != "" {
				t.Fatalf("%+v for %+v", d, j)
			}
		}
		for i, why := range Untouchable(now) {
			if why == "" && !slices.ContainsFunc(got, func(d agentproto.Disk) bool { return ID(d) == ID(now[i]) }) {
				t.Fatalf("%+v was passed over", now[i])
			}
		}
	})
}

func TestUnseen(t *testing.T) {
	for _, c := range []struct {
		judged, now []string
		want        string
	}{
		{nil, nil, ""}, {nil, []string{"GPT"}, ""}, {[]string{}, []string{}, ""}, {[]string{"GPT", "ext"}, []string{"ext"}, ""},
		{[]string{}, []string{"GPT", "ext"}, "GPT, ext"}, {[]string{"GPT"}, []string{"GPT", "ext"}, "ext"}, {[]string{"GPT"}, nil, Holds(nil)},
	} {
		if got := Unseen(c.judged, c.now); got != c.want {
			t.Errorf("%q, then %q: %q, want %q", c.judged, c.now, got, c.want)
		}
	}
}
