package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ironring/ironring/agent/filehw"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/rootdisk"
)

// bigger is large enough for what lies between the ends of a disk.
const bigger = 80 << 20

// everyKind is a machine with a disk of each kind that a clean meets.
func everyKind() []agentproto.Disk {
	d := func(name, serial string) agentproto.Disk {
		return agentproto.Disk{Name: "/dev/" + name, SizeBytes: bigger, Serial: serial, Tran: "sata", LogicalBlk: 512}
	}
	disks := []agentproto.Disk{
		d("sda", "PLAIN"), d("sdb", "MD"), d("sdc", "DDF"), d("sdd", "ASSEMBLED"),
		d("sde", "STICK"), d("sdf", "CARD"), d("sdg", "LOCKED"), d("sdh", "PATH-1"), d("sdi", "PATH-2"), d("sdj", "MAPPED"), d("sdk", "MEDIA"),
	}
	disks[3].Holders = []string{"md127"}
	disks[4].Tran = "usb"
	disks[5].Removable = true
	disks[6].ReadOnly = true
	disks[7].WWN, disks[8].WWN = "0x5000c500aaaaaaaa", "0x5000c500aaaaaaaa"
	disks[9].Holders = []string{"dm-0"}
	disks[10].Model = "Virtual HDisk"
	return disks
}

// write puts bytes into a disk's file.
func write(t *testing.T, path string, off int64, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(data), off); err != nil {
		t.Fatal(err)
	}
}

// newCleanWorld is a machine whose disks are all of everyKind, with something
// old at the head, the tail and the middle of each.
func newCleanWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	cfg := filehw.Config{Files: map[string]string{}}
	cfg.Inventory.Interfaces = []agentproto.Interface{{Name: "eth0", MAC: "52:54:00:77:00:01"}}
	cfg.Inventory.Disks = everyKind()
	for _, d := range cfg.Inventory.Disks {
		cfg.Files[d.Name] = w.path(d.Name[5:])
	}
	var err error
	if w.machine, err = filehw.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.cfg.Hardware = w.machine
	for _, d := range cfg.Inventory.Disks {
		for _, off := range []int64{0, 1000, bigger / 2, bigger - 2<<20} {
			write(t, cfg.Files[d.Name], off, "old data")
		}
	}
	write(t, w.path("sdb"), 4096, "\xfc\x4e\x2b\xa9\x01")
	write(t, w.path("sdc"), bigger-512, "\xde\x11\xde\x11")
	write(t, w.path("sdd"), bigger-128<<10+64<<10, "\xfc\x4e\x2b\xa9")
	// Inside an extended partition of sda lies what was a member once.
	write(t, w.path("sda"), 0, string(mbr(mbrPart{0x05, 16 << 11, 40 << 11})))
	write(t, w.path("sda"), 16<<20, string(mbr(mbrPart{0xfd, 2048, 8 << 11}, mbrPart{0x05, 12 << 11, 8 << 11})))
	write(t, w.path("sda"), 28<<20, string(mbr(mbrPart{0xfd, 2048, 8 << 11}, mbrPart{0x05, 0, 8 << 11}))) // leads back: ends
	write(t, w.path("sda"), 17<<20+4096, "\xfc\x4e\x2b\xa9 first")
	write(t, w.path("sda"), 29<<20+4096, "\xfc\x4e\x2b\xa9 second")
	return w
}

type mbrPart struct {
	kind          byte
	start, blocks uint32
}

// mbr is a sector with a partition table.
func mbr(parts ...mbrPart) []byte {
	b := make([]byte, 512)
	b[510], b[511] = 0x55, 0xaa
	for i, p := range parts {
		e := b[446+16*i:]
		e[4] = p.kind
		for k := range 4 {
			e[8+k], e[12+k] = byte(p.start>>(8*k)), byte(p.blocks>>(8*k))
		}
	}
	return b
}

// A clean of the whole machine clears members of RAIDs too, and says what it
// left alone and why; after it they can be the root disk.
func TestEraseEveryDisk(t *testing.T) {
	w := newCleanWorld(t)
	before, err := w.machine.Disks(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]string{0: "", 1: "raid member (linux md)", 2: "raid member (ddf)", 3: "raid member (md127)"} {
		if before[i].Excluded != want {
			t.Errorf("%s is excluded before: %q, want %q", before[i].Serial, before[i].Excluded, want)
		}
	}
	w.start(w.Peer(""))
	w.Hello(1)
	st := w.run("all", agentproto.CmdEraseMetadata, agentproto.EraseArgs{Disks: rootdisk.Judge(before)})
	var res agentproto.EraseResult
	if err := json.Unmarshal(st.Result, &res); st.State != api.CommandStatus_DONE || err != nil {
		t.Fatal(st)
	}
	erased := map[string]string{}
	for _, d := range res.Disks {
		erased[d.Serial] = strings.Join(d.MemberOf, ",")
	}
	if d := cmp.Diff(map[string]string{"PLAIN": "", "MD": "linux md", "DDF": "ddf", "ASSEMBLED": "linux md"}, erased); d != "" {
		t.Error(d)
	}
	skipped := map[string]string{}
	for _, d := range res.Skipped {
		skipped[d.Serial] = d.Reason
	}
	if d := cmp.Diff(map[string]string{
		"STICK": "usb", "CARD": "removable", "LOCKED": "read-only", "MAPPED": "multipath or mapped (dm-0)", "MEDIA": "virtual media",
		"PATH-1": "multipath (same WWN as /dev/sdi)", "PATH-2": "multipath (same WWN as /dev/sdh)",
	}, skipped); d != "" {
		t.Error(d)
	}
	for _, d := range res.Skipped {
		if n := w.machine.BytesWritten(d.Name); n != 0 {
			t.Errorf("%d bytes were written to %s, which is left alone", n, d.Serial)
		}
	}
	after, err := w.machine.Disks(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range after[:4] {
		if d.Excluded != "" {
			t.Errorf("%s is excluded after the clean: %s", d.Serial, d.Excluded)
		}
		hint, _ := rootdisk.Hint(after[i], after)
		if got, err := rootdisk.Choose(after, []byte(hint), rootdisk.Options{MinBytes: 1 << 20}); err != nil || got.Serial != d.Serial {
			t.Errorf("%s cannot be the root disk: %v", d.Serial, err)
		}
	}
	b, err := os.ReadFile(w.path("sda"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("first")) || bytes.Contains(b, []byte("second")) {
		t.Error("a superblock inside an extended partition is still there")
	}
	if !bytes.Contains(b, []byte("old data")) {
		t.Error("data was erased: this is for metadata")
	}
	w.waitUp("a line about a disk that is left alone", func(u *api.AgentUp) bool {
		return strings.Contains(u.GetLog().GetText(), "not erased") && strings.Contains(u.GetLog().GetText(), "usb")
	})
}

// Where nothing may be written the clean says so instead of doing nothing.
func TestEraseNothing(t *testing.T) {
	w := newWorld(t, nil)
	disks := everyKind()[4:6]
	cfg := filehw.Config{Files: map[string]string{}}
	cfg.Inventory.Disks = disks
	for _, d := range disks {
		cfg.Files[d.Name] = w.path(d.Name[5:])
	}
	var err error
	if w.machine, err = filehw.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.cfg.Hardware = w.machine
	w.start(w.Peer(""))
	w.Hello(1)
	st := w.run("all", agentproto.CmdEraseMetadata, agentproto.EraseArgs{})
	if st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, "/dev/sde: usb") || !strings.Contains(st.Error, "/dev/sdf: removable") {
		t.Error(st)
	}
}
