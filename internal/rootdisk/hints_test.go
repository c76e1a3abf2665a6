package rootdisk

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

func TestHints(t *testing.T) {
	disk := agentproto.Disk{
		Name: "/dev/sda", SizeBytes: 500 << 30, Model: "VBOX HARDDISK", Vendor: "ATA", Serial: "S3Z1NB0K",
		WWN: "0x5000C500A1B2C3D4", WWNExt: "0x5000c500a1b2c3d4e5", Rotational: true, HCTL: "1:0:0:0",
		ByPath: "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", Tran: "sata",
	}
	for _, c := range []struct {
		hints string
		want  bool
	}{
		{``, true}, {`null`, true}, {`{}`, true}, {` `, true},
		// No operator is equality, letter case aside.
		{`{"serial":"s3z1nb0k"}`, true},
		{`{"serial":" S3Z1NB0K "}`, true},
		{`{"serial":"S3Z1"}`, false},
		{`{"model":"vbox harddisk"}`, true},
		{`{"model":"vbox"}`, false},
		{`{"wwn":"0x5000c500a1b2c3d4"}`, true},
		{`{"wwn_with_extension":"0x5000c500a1b2c3d4e5"}`, true},
		{`{"hctl":"1:0:0:0"}`, true},
		{`{"tran":"nvme"}`, false},
		{`{"by_path":"/dev/disk/by-path/pci-0000:00:1f.2-ata-1"}`, true},
		{`{"name":"/dev/sda"}`, true},
		// Text operators.
		{`{"serial":"s== S3Z1NB0K"}`, true},
		{`{"serial":"s!= S3Z1NB0K"}`, false},
		{`{"serial":"s!=other"}`, true},
		{`{"model":"s< w"}`, true}, {`{"model":"s<= vbox harddisk"}`, true},
		{`{"model":"s> w"}`, false}, {`{"model":"s>= vbox"}`, true},
		{`{"model":"<in> harddisk"}`, true},
		{`{"model":"<in> y harddisk"}`, false},
		{`{"model":"<in>box h"}`, true},
		{`{"serial":"<or> a <or> S3Z1NB0K <or> b"}`, true},
		{`{"model":"<or> foo <or> vbox harddisk"}`, true},
		{`{"serial":"<or> a"}`, false},
		{`{"model":"<all-in> disk vbox"}`, true},
		{`{"model":"<all-in> disk <all-in> vbox"}`, true},
		{`{"model":"<all-in> disk qemu"}`, false},
		// An attribute that is missing fits nothing.
		{`{"wwn_vendor_extension":"s!= x"}`, false},
		{`{"wwn_vendor_extension":"x"}`, false},
		// Numbers.
		{`{"size":500}`, true}, {`{"size":"500"}`, true}, {`{"size":499}`, false},
		{`{"size":"= 400"}`, true}, {`{"size":"=600"}`, false},
		{`{"size":">= 500"}`, true}, {`{"size":"> 500"}`, false},
		{`{"size":"<= 500"}`, true}, {`{"size":"< 501"}`, true}, {`{"size":"< 500"}`, false},
		{`{"size":"== 500"}`, true}, {`{"size":"!= 500"}`, false},
		{`{"size":"<or> 100 <or> 500"}`, true}, {`{"size":"<or> 100 <or> 50"}`, false},
		// Booleans.
		{`{"rotational":true}`, true}, {`{"rotational":"yes"}`, true}, {`{"rotational":1}`, true},
		{`{"rotational":false}`, false}, {`{"rotational":"Off"}`, false},
		// All of them must hold.
		{`{"rotational":true,"size":">= 400","serial":"S3Z1NB0K"}`, true},
		{`{"rotational":true,"size":">= 600","serial":"S3Z1NB0K"}`, false},
	} {
		h, err := ParseHints([]byte(c.hints))
		if err != nil {
			t.Errorf("%s: %v", c.hints, err)
		} else if got := h.Fits(disk); got != c.want {
			t.Errorf("%s: fits is %v", c.hints, got)
		}
	}
}

func TestSizeOfADiskWithAFraction(t *testing.T) {
	disk := agentproto.Disk{SizeBytes: 500<<30 + 100<<20}
	for hint, want := range map[string]bool{
		"500": true, "== 500": true, "!= 500": false, "> 500": true, "<= 500": false, "< 501": true, "501": false,
	} {
		h, err := ParseHints([]byte(`{"size":"` + hint + `"}`))
		if err != nil || h.Fits(disk) != want {
			t.Errorf("%s: %v, %v", hint, h.Fits(disk), err)
		}
	}
}

func TestHintsRefused(t *testing.T) {
	for _, c := range []struct{ hints, want string }{
		{`[]`, "must be an object"},
		{`{`, "malformed"},
		{`"sda"`, "must be an object"},
		{`{"serial":"a","serial":"b"}`, "twice"},
		{`{"seriall":"a"}`, `"seriall": there is no such hint; the hints are by_path, hctl`},
		{`{"serial":5}`, "must be a string"},
		{`{"serial":null}`, "must be a string"},
		{`{"serial":""}`, "empty"},
		{`{"serial":"  "}`, "empty"},
		{`{"serial":"s=="}`, "empty"},
		{`{"serial":"<or>"}`, "empty"},
		{`{"serial":"<or> a <or>"}`, "empty"},
		{`{"serial":"<all-in> "}`, "empty"},
		{`{"serial":"<or> a <or> <in> b"}`, "one operator"},
		{`{"serial":">= 5"}`, "compares numbers"},
		{`{"model":"= x"}`, "compares numbers"},
		{`{"size":"s== 5"}`, "compares text"},
		{`{"size":"<in> 5"}`, "compares text"},
		{`{"size":"<all-in> 5"}`, "compares text"},
		{`{"size":"big"}`, "not a whole number"},
		{`{"size":0}`, "not a whole number"},
		{`{"size":-1}`, "not a whole number"},
		{`{"size":1.5}`, "not a whole number"},
		{`{"size":"100 GB"}`, "not a whole number"},
		{`{"size":[1]}`, "must be a number"},
		{`{"rotational":"maybe"}`, "true or false"},
		{`{"rotational":null}`, "true or false"},
		{`{"serial":"` + strings.Repeat("x", 17<<10) + `"}`, "at most"},
	} {
		_, err := ParseHints([]byte(c.hints))
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v; want %q", c.hints, err, c.want)
		}
	}
}

func FuzzHints(f *testing.F) {
	for _, s := range []string{
		`{"serial":"<or> a <or> b","size":">= 5","rotational":"on"}`, `{"model":"<all-in> a b"}`,
		`{"model":"<in> é"}`, `{"size":1e3}`, `null`, `{"serial":"s>="}`,
	} {
		f.Add([]byte(s), "SN1", "QEMU DISK", uint64(5<<30))
	}
	f.Fuzz(func(t *testing.T, hints []byte, serial, model string, size uint64) {
		h, err := ParseHints(hints)
		if err != nil {
			if !errors.Is(err, errs.Invalid) || len(err.Error()) > 500 {
				t.Fatalf("%v", err)
			}
			return
		}
		disks := []agentproto.Disk{
			{Name: "/dev/vda", Serial: serial, Model: model, SizeBytes: size},
			{Name: "/dev/vdb", Serial: "other", Model: model, SizeBytes: size},
		}
		fit := h.Fits(disks[0])
		if h.None() && !fit {
			t.Fatal("no hints fit every disk")
		}
		d, err := Choose(disks, hints, Options{})
		if err == nil && (Ineligible(d) != "" || !h.Fits(d)) {
			t.Fatalf("chose %+v", d)
		}
		// A hint to paste means its disk.
		if hint, ok := Hint(disks[0], disks); ok {
			again, err := ParseHints([]byte(hint))
			if err != nil || !json.Valid([]byte(hint)) || !again.Fits(disks[0]) || again.Fits(disks[1]) {
				t.Fatalf("hint %s: %v", hint, err)
			}
		}
	})
}
