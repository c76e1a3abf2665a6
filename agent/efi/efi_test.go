package efi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

// golden is a Boot#### variable put together by hand after the UEFI
// specification, 3.1.3 (load options), 10.3.5.1 (hard drive) and 10.3.5.4 (file).
const golden = "01000000" + // active
	"6200" + // 98 bytes of path: 42 + 52 + 4
	"490072006f006e00720069006e0067000000" + // "Ironring"
	"04012a00" + "01000000" + "0008000000000000" + "00d8010000000000" +
	"28732ac11ff8d211ba4b00a0c93ec93b" + "0202" +
	"04043400" + "5c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e004500460049000000" + "00000000" +
	"7fff0400"

func entry(t *testing.T) LoadOption {
	t.Helper()
	sig, err := ParseGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	if err != nil {
		t.Fatal(err)
	}
	return LoadOption{
		Attributes:  LoadActive,
		Description: "Ironring",
		Path: DevicePath{
			HardDrive{Number: 1, Start: 0x800, Size: 0x1d800, Signature: sig, Format: 2, SigType: SignatureGUID}.Node(),
			FilePath(`\EFI\BOOT\BOOTX64.EFI`),
		},
	}
}

func TestLoadOptionGolden(t *testing.T) {
	// The file name node is 4 + 2*22 = 48 bytes; the path 42 + 48 + 4 = 94.
	want := strings.Replace(golden, "6200", "5e00", 1)
	want = strings.Replace(want, "04043400", "04043000", 1)
	want = strings.Replace(want, "45004600490000000000"+"0000"+"7fff", "4500460049000000"+"7fff", 1)
	got := hex.EncodeToString(entry(t).Encode())
	if got != want {
		t.Fatalf("encoded\n%s, want\n%s", got, want)
	}
	b, _ := hex.DecodeString(want)
	o, err := ParseLoadOption(b)
	if err != nil {
		t.Fatal(err)
	}
	if s := o.Path.String(); s != `HD(1,GPT,c12a7328-f81f-11d2-ba4b-00a0c93ec93b,0x800,0x1d800)/\EFI\BOOT\BOOTX64.EFI` {
		t.Errorf("path %s", s)
	}
	if o.Description != "Ironring" || o.Attributes != LoadActive || len(o.Data) != 0 || len(o.More) != 0 {
		t.Errorf("parsed %+v", o)
	}
	if !bytes.Equal(o.Encode(), b) {
		t.Error("parse and encode change the bytes")
	}
}

// As some firmware writes it: four bytes too many in the file node, optional
// data behind the list.
func TestLoadOptionForeign(t *testing.T) {
	b, err := hex.DecodeString(golden + "deadbeef")
	if err != nil {
		t.Fatal(err)
	}
	o, err := ParseLoadOption(b)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := o.Path[1].FilePath(); !ok || f != `\EFI\BOOT\BOOTX64.EFI` {
		t.Errorf("file %q", f)
	}
	if hex.EncodeToString(o.Data) != "deadbeef" {
		t.Errorf("data %x", o.Data)
	}
	if !bytes.Equal(o.Encode(), b) {
		t.Error("parse and encode change the bytes")
	}
}

func TestLoadOptionBad(t *testing.T) {
	for name, h := range map[string]string{
		"empty":          "",
		"short":          "0100000004",
		"no description": "010000000400" + "4900",
		"path too long":  "010000000500" + "0000" + "7fff0400",
		"node too short": "010000000400" + "0000" + "04010300",
		"node too long":  "010000000400" + "0000" + "0401ff00",
		"no end":         "010000000400" + "0000" + "01010400",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseLoadOption(b); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOrder(t *testing.T) {
	o, err := ParseOrder([]byte{3, 0, 0x1f, 0})
	if err != nil || len(o) != 2 || o[1] != 0x1f {
		t.Fatal(o, err)
	}
	if !bytes.Equal(EncodeOrder(o), []byte{3, 0, 0x1f, 0}) {
		t.Error("order changes")
	}
	if _, err := ParseOrder([]byte{1}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	for s, want := range map[string]int{"Boot001F": 0x1f, "BootFFFF": 0xffff, "BootOrder": -1, "Boot001f": -1, "Boot": -1, "Bootzzzz": -1} {
		n, ok := ParseBootName(s)
		if ok != (want >= 0) || ok && int(n) != want {
			t.Errorf("%s: %d %v", s, n, ok)
		}
	}
	if BootName(0x1f) != "Boot001F" {
		t.Error(BootName(0x1f))
	}
}

func TestVars(t *testing.T) {
	for name, v := range map[string]Vars{"dir": FS{Dir: t.TempDir()}, "memory": &Memory{}} {
		if _, _, err := v.Get("BootOrder"); !errors.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if err := v.Set("BootOrder", Stored, []byte{1, 0}); err != nil {
			t.Fatal(err)
		}
		b, a, err := v.Get("BootOrder")
		if err != nil || a != Stored || !bytes.Equal(b, []byte{1, 0}) {
			t.Errorf("%s: %x %d %v", name, b, a, err)
		}
		if ns, err := v.Names(); err != nil || len(ns) != 1 || ns[0] != "BootOrder" {
			t.Errorf("%s: %v %v", name, ns, err)
		}
		if err := v.Delete("BootOrder"); err != nil {
			t.Error(err)
		}
		if err := v.Delete("BootOrder"); err != nil {
			t.Error("second delete:", err)
		}
	}
}

func FuzzLoadOption(f *testing.F) {
	b, _ := hex.DecodeString(golden)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseLoadOption(b)
		if err != nil {
			return
		}
		_ = o.Path.String()
		again, err := ParseLoadOption(o.Encode())
		if err != nil {
			t.Fatalf("encoded option does not parse: %v", err)
		}
		if !bytes.Equal(again.Encode(), o.Encode()) {
			t.Fatal("encoding is not stable")
		}
	})
}
