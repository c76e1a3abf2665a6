package pxe

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/ipxe"
)

var testLine = LineConfig{CADigest: digest, KernelArgs: BaseKernelArgs}

func TestRecord(t *testing.T) {
	v := newWorld(t).store.View()
	for _, c := range []struct {
		name, mac string
		target    api.BootTarget
		reason    string
	}{
		{"ramdisk", macDeploying, api.BootTarget_BOOT_RAMDISK, ""},
		{"local", macActive, api.BootTarget_BOOT_LOCAL, ""},
		{"nothing", macNothing, api.BootTarget_BOOT_NOTHING, ""},
		{"verifying", macVerifying, api.BootTarget_BOOT_RAMDISK, ""},
		{"no-pxe", macNoPXE, api.BootTarget_BOOT_NOTHING, "network boot is off for this port"},
		{"unknown", macUnknown, api.BootTarget_BOOT_NOTHING, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Record(v, c.mac)
			if r.Target != c.target || r.Reason != c.reason || r.Known != (c.mac != macUnknown) {
				t.Fatalf("got %+v", r)
			}
			if (r.Nonce != "") != (c.target == api.BootTarget_BOOT_RAMDISK) {
				t.Errorf("nonce %q for target %v", r.Nonce, r.Target)
			}
			golden(t, "scripts/"+c.name+".ipxe", string(r.Script(testLine)))
		})
	}
}

// TestBadFields: what cannot stand in a script makes the node unbootable.
func TestBadFields(t *testing.T) {
	w := newWorld(t)
	w.boot(nodeDeploying, &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: "x${net0/mac}"})
	if r := Record(w.store.View(), macDeploying); r.Target != api.BootTarget_BOOT_NOTHING || r.Reason == "" {
		t.Fatalf("a nonce with a reference was taken: %+v", r)
	}
	for _, m := range w.store.View().Members() {
		m = proto.CloneOf(m)
		m.BootAddress = "10.77.0.1\nchain http://evil:80"
		w.do(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: m}}})
	}
	if r := Record(w.store.View(), macVerifying); r.Target != api.BootTarget_BOOT_NOTHING || len(r.BootPeers) > 0 {
		t.Fatalf("a boot address with a line break was taken: %+v", r)
	}
}

// TestI9 builds the same log at three peers and compares what each machine
// gets from each: scripts are the same bytes; DHCP answers differ in nothing
// but the answering peer.
func TestI9(t *testing.T) {
	logs := []*world{newWorld(t), newWorld(t), newWorld(t)}
	macs := []string{macDeploying, macActive, macNothing, macVerifying, macNoPXE, macUnknown}
	for _, mac := range macs {
		var script, offer string
		for i, w := range logs {
			v := w.store.View()
			s := string(Record(v, mac).Script(testLine))
			self := fmt.Sprintf("10.77.0.1%d", i+1)
			d := decide(v, ask{packet: discover(t, mac, ipxeModifiers...), iface: addrs(self), to: broadcast},
				us{id: fmt.Sprintf("p%d", i+1), own: addrs(self), http: anyHTTP, tftp: anyTFTP})
			o := d.reason
			if d.reply != nil {
				o = strings.ReplaceAll(d.reply.Summary(), self, "SELF")
			}
			if i == 0 {
				script, offer = s, o
				continue
			}
			if s != script {
				t.Errorf("%s: peer %d gives another script:\n%s\nfirst:\n%s", mac, i+1, s, script)
			}
			if o != offer {
				t.Errorf("%s: peer %d gives another offer:\n%s\nfirst:\n%s", mac, i+1, o, offer)
			}
		}
	}
}

// vm runs scripts; bases in up answer.
type vm struct {
	up     map[string]bool
	dhcp   func() (ipxe.Settings, error)
	script func(url string) (string, error)
	tried  []string
	slept  []time.Duration
}

func (m *vm) Fetch(_ context.Context, _, url string, timeout time.Duration) error {
	m.tried = append(m.tried, url)
	if timeout <= 0 {
		return errs.New(errs.Invalid, "a fetch without a limit")
	}
	base, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	if !m.up[base] {
		return errs.New(errs.Timeout, "no answer")
	}
	return nil
}

func (m *vm) Script(_ context.Context, url string, _ time.Duration) (string, error) {
	return m.script(url)
}
func (m *vm) DHCP(context.Context) (ipxe.Settings, error) { return m.dhcp() }
func (m *vm) Sleep(_ context.Context, d time.Duration) error {
	m.slept = append(m.slept, d)
	return nil
}
func (m *vm) Print(string) {}

// TestScriptFindsAPeer runs the script as iPXE would.
func TestScriptFindsAPeer(t *testing.T) {
	rec := Record(newWorld(t).store.View(), macDeploying)
	text := string(rec.Script(testLine))
	t.Run("first attempt at once", func(t *testing.T) {
		m := &vm{up: map[string]bool{"10.77.0.12:7484": true}}
		got, err := ipxe.Run(t.Context(), m, text, ipxe.Settings{"next-server": "10.77.0.12"})
		if err != nil || !got.Booted || len(m.tried) != 2 || len(m.slept) != 0 {
			t.Fatalf("%+v, %v, tried %v, slept %v", got, err, m.tried, m.slept)
		}
		if want := "initrd=initramfs.img " + rec.KernelLine(testLine); got.Line != want {
			t.Errorf("line %q, want %q", got.Line, want)
		}
		if want := "http://10.77.0.12:7484/ramdisk/vmlinuz"; got.Kernel != want {
			t.Errorf("kernel from %s, want %s", got.Kernel, want)
		}
	})
	t.Run("another peer", func(t *testing.T) {
		m := &vm{up: map[string]bool{"10.77.0.13:7484": true}}
		got, err := ipxe.Run(t.Context(), m, text, ipxe.Settings{"next-server": "10.77.0.12"})
		if err != nil || !got.Booted || !strings.Contains(got.Initrd, "10.77.0.13") || len(m.slept) != 0 {
			t.Fatalf("%+v, %v, tried %v, slept %v", got, err, m.tried, m.slept)
		}
	})
	t.Run("dhcp again", func(t *testing.T) {
		m := &vm{up: map[string]bool{}}
		asked := 0
		m.dhcp = func() (ipxe.Settings, error) {
			if asked++; asked < 6 {
				return nil, errs.New(errs.Timeout, "no answer")
			}
			return ipxe.Settings{"filename": "http://10.77.0.11:7484/boot/" + macDeploying}, nil
		}
		m.script = func(url string) (string, error) {
			if !strings.HasSuffix(url, macDeploying) {
				t.Errorf("chains to %s", url)
			}
			return string(Record(newWorld(t).store.View(), macActive).Script(testLine)), nil
		}
		got, err := ipxe.Run(t.Context(), m, text, ipxe.Settings{"next-server": "10.77.0.12"})
		if err != nil || got.Booted || got.Exit != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		want := []time.Duration{1, 2, 4, 8, 8, 8}
		for i := range want {
			want[i] *= time.Second
		}
		if fmt.Sprint(m.slept) != fmt.Sprint(want) {
			t.Errorf("slept %v, want %v", m.slept, want)
		}
		if len(m.tried) != 6*3 {
			t.Errorf("%d fetches, want each of 3 peers in 6 rounds: %v", len(m.tried), m.tried)
		}
	})
}

// TestWaitSurvivesChain: the next script goes on with the wait of this one.
func TestWaitSurvivesChain(t *testing.T) {
	text := string(Record(newWorld(t).store.View(), macDeploying).Script(testLine))
	m := &vm{up: map[string]bool{}}
	m.dhcp = func() (ipxe.Settings, error) { return ipxe.Settings{}, nil }
	m.script = func(string) (string, error) {
		if len(m.slept) == 5 {
			return "#!ipxe\nexit 1\n", nil
		}
		return text, nil
	}
	_, err := ipxe.Run(t.Context(), m, text, ipxe.Settings{"next-server": "10.77.0.99", "filename": "http://x/boot"})
	if err != nil || fmt.Sprint(m.slept) != "[1s 2s 4s 8s 8s]" {
		t.Fatalf("slept %v, %v", m.slept, err)
	}
	if len(m.tried) != 5*4 {
		t.Errorf("%d fetches, want next-server and 3 peers in 5 rounds", len(m.tried))
	}
}

// TestOrderSpreads: machines do not all go to the same peer first.
func TestOrderSpreads(t *testing.T) {
	var members []*api.Member
	for i := range 5 {
		members = append(members, &api.Member{Id: fmt.Sprintf("p%d", i), Phase: api.Member_READY})
	}
	members = append(members, &api.Member{Id: "gone", Phase: api.Member_LEFT}, &api.Member{Id: "new"})
	first := map[string]int{}
	for i := range 1000 {
		order := ranked(members, fmt.Sprintf("52:54:00:00:%02x:%02x", i/256, i%256))
		if len(order) != 5 {
			t.Fatalf("%d members serve, want 5", len(order))
		}
		first[order[0].GetId()]++
	}
	for id, n := range first {
		if n < 120 || n > 280 {
			t.Errorf("%s is first for %d of 1000 machines", id, n)
		}
	}
	if len(first) != 5 || rankOf(members, "stranger") != len(members) {
		t.Errorf("first: %v", first)
	}
}

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]string{
		"52:54:00:00:00:01": "52:54:00:00:00:01", "52-54-00-AA-bb-01": "52:54:00:aa:bb:01",
		"": "", "52:54:00:00:00": "", "52:54:00:00:00:0g": "", "52:54-00:00:00:01": "", "52:54:00:00:00:01:": "",
		"../../../etc/passw": "", "01:00:5e:00:00:01": "", "ff:ff:ff:ff:ff:ff": "", "00:00:00:00:00:00": "",
		"525400000001": "", "5254.0000.0001": "", "52:54:00:00:00:01\n": "",
	} {
		if got, ok := ParseMAC(in); got != want || ok != (want != "") {
			t.Errorf("ParseMAC(%q) = %q, %v", in, got, ok)
		}
	}
}

func TestValidAddress(t *testing.T) {
	for in, want := range map[string]bool{
		"10.0.0.1:80": true, "peer-1.example.org:7484": true, "[2001:db8::1]:80": true,
		"": false, "10.0.0.1": false, "10.0.0.1:0": false, "10.0.0.1:080": false, "10.0.0.1:65536": false,
		"0.0.0.0:80": false, ":80": false, "a b:80": false, "${x}:80": false, "[fe80::1%eth0]:80": false, "-a:80": false,
	} {
		if _, _, ok := validAddress(in); ok != want {
			t.Errorf("validAddress(%q) = %v", in, ok)
		}
	}
}
