package kmod

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

func index(t *testing.T, files map[string]string) *Index {
	t.Helper()
	m := fstest.MapFS{}
	for n, c := range files {
		m[n] = &fstest.MapFile{Data: []byte(c)}
	}
	x, err := Load(m)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestIndex(t *testing.T) {
	x := index(t, map[string]string{
		"modules.dep": "kernel/net/core/failover.ko:\n" +
			"kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n" +
			"kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n" +
			"kernel/drivers/scsi/sd-mod.ko.xz:\nkernel/lib/crc-t10dif.ko:\nkernel/drivers/a.ko:\n",
		"modules.alias": "# comment\nalias virtio:d00000001v* virtio_net\nalias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n" +
			"alias scsi:t-0x0[07]* sd-mod\nalias fs-x x extra\n",
		"modules.softdep": "softdep sd_mod pre: crc_t10dif post: a\nsoftdep a pre: sd_mod\n",
		"modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
	})
	if got := x.Order("virtio-net", "virtio_net", "nothing", "virtio_pci"); !slices.Equal(got, []string{
		"kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko"}) {
		t.Error(got)
	}
	if got := x.Order("sd_mod"); !slices.Equal(got, []string{"kernel/lib/crc-t10dif.ko", "kernel/drivers/scsi/sd-mod.ko.xz", "kernel/drivers/a.ko"}) {
		t.Error(got)
	}
	for alias, want := range map[string]string{
		"virtio:d00000001v00001AF4":                             "virtio_net",
		"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00": "e1000",
		"pci:v00008086d0000100Fsv00001AF4sd00001100bc02sc00i00": "",
		"scsi:t-0x00": "sd_mod", "scsi:t-0x05": "", "scsi:t-0x07": "sd_mod", "": "",
	} {
		if got := strings.Join(x.Match(alias), ","); got != want {
			t.Errorf("%s: %q, want %q", alias, got, want)
		}
	}
	if !x.Has("virtio_pci") || x.Has("nothing") || x.File("virtio_pci") != "" || x.File("sd_mod") != "kernel/drivers/scsi/sd-mod.ko.xz" {
		t.Error("File, Has")
	}
	if len(x.Modules()) != 6 {
		t.Error(x.Modules())
	}
	if _, err := Load(fstest.MapFS{}); err == nil {
		t.Error("no error without modules.dep")
	}
	if _, err := Load(fstest.MapFS{"modules.dep": &fstest.MapFile{Data: []byte("nonsense\n")}}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		p, s string
		want bool
	}{
		{"", "", true}, {"*", "", true}, {"a*", "a", true}, {"a*b", "axxb", true}, {"a*b", "axxc", false}, {"?", "", false}, {"a?c", "a/c", true},
		{"[!a-c]", "d", true}, {"[!a-c]", "b", false}, {"[a-c", "b", false}, {"x[", "x", false}, {"**", "anything", true}, {"[-x]", "-", true},
	} {
		if glob(c.p, c.s) != c.want {
			t.Errorf("%q %q", c.p, c.s)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?[c-d]", "axbxc")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 40 || len(s) > 40 || strings.Count(p, "*") > 6 {
			return // what firmware and depmod write is simpler
		}
		began := time.Now()
		glob(p, s)
		if time.Since(began) > 5*time.Second {
			t.Fatal("too slow")
		}
	})
}
