package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	diskfsfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

const espGUID = "0f0e0d0c-0b0a-0908-0706-050403020100"

// putGPT writes a GPT with an ESP from 1 to 6 MiB and a partition from 6 to 10.
func putGPT(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	t := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: 2048, End: 12287, Type: gpt.EFISystemPartition, Name: "esp", GUID: strings.ToUpper(espGUID)},
		{Index: 2, Start: 12288, End: 20479, Type: gpt.LinuxFilesystem, Name: "root"},
	}}
	return t.Write(f, diskSize)
}

// putESP makes the first partition a FAT file system with these files.
func putESP(t *testing.T, path string, files ...string) {
	t.Helper()
	b, err := diskfsfile.OpenFromPath(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fs, err := fat32.Create(b, 5<<20, 1<<20, 512, "ESP", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if err := fs.Mkdir(filepath.Dir(name)); err != nil {
			t.Fatal(err)
		}
		f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("MZ loader")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func setVar(t *testing.T, v efi.Vars, name string, data []byte) {
	t.Helper()
	if err := v.Set(name, efi.Stored, data); err != nil {
		t.Fatal(err)
	}
}

func TestBootEntry(t *testing.T) {
	vars := &efi.Memory{}
	other := efi.LoadOption{Attributes: 1, Description: "UEFI PXEv4"}.Encode()
	setVar(t, vars, "Boot0000", other)
	setVar(t, vars, "Boot0001", []byte{1}) // rubbish of the vendor's
	setVar(t, vars, "BootOrder", efi.EncodeOrder([]uint16{0, 1, 7}))
	setVar(t, vars, "BootCurrent", efi.EncodeOrder([]uint16{0}))
	w := newWorld(t, vars)
	if err := putGPT(w.path("vda")); err != nil {
		t.Fatal(err)
	}
	putESP(t, w.path("vda"), "/efi/boot/bootx64.efi")
	w.start(w.Peer(""))
	w.Hello(1)
	boot := agentproto.BootEntryArgs{Disk: diskA()}
	var last string
	for _, id := range []string{"b1", "b2"} { // the second time changes nothing
		st := w.run(id, agentproto.CmdBootEntry, boot)
		var res agentproto.BootEntryResult
		if err := json.Unmarshal(st.Result, &res); err != nil || st.State != api.CommandStatus_DONE {
			t.Fatal(st)
		}
		if res.Mode != "uefi" || res.Entry != "Boot0002" || res.Loader != `\EFI\BOOT\BOOTX64.EFI` || strings.Join(res.Order, ",") != "Boot0002,Boot0000,Boot0001,Boot0007" {
			t.Errorf("%+v", res)
		}
		b, attrs, err := vars.Get("Boot0002")
		if err != nil || attrs != efi.Stored {
			t.Fatal(attrs, err)
		}
		o, err := efi.ParseLoadOption(b)
		if err != nil || o.Path.String() != "HD(1,GPT,"+espGUID+`,0x800,0x2800)/\EFI\BOOT\BOOTX64.EFI` {
			t.Error(o.Path.String(), err)
		}
		last = string(b)
	}
	// Another entry of ours, from an earlier life, is taken away.
	setVar(t, vars, "Boot0009", []byte(last))
	setVar(t, vars, "BootOrder", efi.EncodeOrder([]uint16{9, 0, 2}))
	st := w.run("b3", agentproto.CmdBootEntry, boot)
	var res agentproto.BootEntryResult
	if err := json.Unmarshal(st.Result, &res); err != nil || strings.Join(res.Order, ",") != "Boot0002,Boot0000" {
		t.Error(st)
	}
	if _, _, err := vars.Get("Boot0009"); !errors.Is(err, errs.NotFound) {
		t.Error("the old entry is still there:", err)
	}
	if b, _, _ := vars.Get("Boot0000"); string(b) != string(other) {
		t.Error("an entry of others was changed")
	}
	// Without a loader the machine would not boot; say so.
	if err := os.Truncate(w.path("vda"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(w.path("vda"), diskSize); err != nil {
		t.Fatal(err)
	}
	if st := w.run("b4", agentproto.CmdBootEntry, boot); st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, "no EFI system partition") {
		t.Error(st)
	}
	if err := putGPT(w.path("vda")); err != nil {
		t.Fatal(err)
	}
	if st := w.run("b5", agentproto.CmdBootEntry, boot); st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, "FAT") {
		t.Error(st)
	}
	putESP(t, w.path("vda"), "/EFI/debian/grubx64.efi")
	if st := w.run("b6", agentproto.CmdBootEntry, boot); st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, "BOOTX64.EFI") {
		t.Error(st)
	}
}

func TestBootEntryBIOS(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	boot := agentproto.BootEntryArgs{Disk: diskA()}
	for name, sector := range map[string]string{
		"empty": strings.Repeat("\x00", 512), "no-signature": "program" + strings.Repeat("\x00", 505),
		"no-program": string(mbr(mbrPart{0xee, 1, 4096})),
	} {
		write(t, w.path("vda"), 0, sector)
		if st := w.run(name, agentproto.CmdBootEntry, boot); st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, "UEFI only") {
			t.Error(st)
		}
	}
	for active := range 3 {
		sector := mbr(mbrPart{0xee, 1, 4096}, mbrPart{0x83, 1, 4096})
		copy(sector, "program")
		if active > 0 {
			sector[446+16*(active-1)] = 0x80
		}
		write(t, w.path("vda"), 0, string(sector))
		st := w.run(fmt.Sprint("b", active), agentproto.CmdBootEntry, boot)
		var res agentproto.BootEntryResult
		if err := json.Unmarshal(st.Result, &res); err != nil || res.Mode != "bios" || res.Entry != "" || res.Active != active {
			t.Error(st)
		}
	}
}
