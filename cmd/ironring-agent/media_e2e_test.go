//go:build linux && e2e

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ironring/ironring/agent/agenttest"
	"github.com/ironring/ironring/agent/ramdisk"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/pxe/media"
)

// siteWithoutDHCP is a NIC with IPv4 and IPv6, and a VLAN on a bond of two
// others. QEMU's own network, which the peer is reached by, knows neither.
const siteWithoutDHCP = `{
 "links": [
  {"id": "tagged", "type": "vlan", "vlan_link": "both", "vlan_id": 7},
  {"id": "both", "type": "bond", "bond_links": ["two", "three"], "bond_mode": "active-backup"},
  {"id": "one", "type": "phy", "ethernet_mac_address": "52:54:00:77:00:01"},
  {"id": "two", "type": "phy", "ethernet_mac_address": "52:54:00:77:00:02"},
  {"id": "three", "type": "phy", "ethernet_mac_address": "52:54:00:77:00:03"}
 ],
 "networks": [
  {"id": "n4", "type": "ipv4", "link": "one", "ip_address": "10.0.2.77/24", "gateway": "10.0.2.2"},
  {"id": "n6", "type": "ipv6", "link": "one", "ip_address": "fec0::77/64", "gateway": "fec0::2"},
  {"id": "n7", "type": "ipv4", "link": "tagged", "ip_address": "192.0.2.7/24"}
 ],
 "services": [{"type": "dns", "address": "10.0.2.3"}, {"type": "ntp", "address": "10.0.2.9"}]
}`

// TestBootFromMedia boots the ramdisk from a boot medium as a virtual CD under
// UEFI, under Secure Boot's loader, on a network where nothing asks for DHCP:
// the agent sets up addresses, a bond and a VLAN from the medium and enrols.
func TestBootFromMedia(t *testing.T) {
	dir := t.TempDir()
	k, err := ramdisk.FetchDebianKernel(context.Background(), filepath.Join(os.TempDir(), "ironring-e2e-kernel"))
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "ironring-agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	if _, err := ramdisk.Build(ramdisk.Options{Kernel: k.Image, ModulesDir: k.ModulesDir, Agent: bin, Out: dir}); err != nil {
		t.Fatal(err)
	}
	c := agenttest.New(t)
	c.SetPatience(time.Minute)
	p := c.Peer("")
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	line := c.Line(p)
	maker, err := media.New(media.Config{Dir: filepath.Join(dir, "media"), Loader: media.DebianLoader, Open: func(_ context.Context, key string) (io.ReadCloser, error) {
		return os.Open(filepath.Join(dir, key))
	}})
	if err != nil {
		t.Fatal(err)
	}
	im, err := maker.Image(t.Context(), ramdisk.KernelFile, ramdisk.InitramfsFile, media.Params{
		KernelLine: fmt.Sprintf("console=ttyS0 quiet %s=%s %s=%s %s=10.0.2.2:%s %s=%s",
			agentproto.LineNode, line.Node, agentproto.LineNonce, line.Nonce, agentproto.LinePeers, port, agentproto.LineCA, line.CADigest),
		Network: []byte(siteWithoutDHCP),
	})
	if err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "boot.iso")
	out, err := os.Create(iso)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, im); err != nil {
		t.Fatal(err)
	}
	out.Close()
	im.Close()

	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatalf("package ovmf: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
		t.Fatal(err)
	}
	serial := filepath.Join(dir, "serial.log")
	vm := exec.Command("nice", "-n", "10", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "1024", "-smp", "1",
		"-nodefaults", "-display", "none", "-no-reboot", "-uuid", "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
		"-drive", "if=pflash,unit=1,format=raw,file="+filepath.Join(dir, "vars.fd"),
		"-drive", "if=none,id=cd,format=raw,readonly=on,media=cdrom,file="+iso, "-device", "ide-cd,drive=cd,bootindex=1",
		"-netdev", "user,id=u0,ipv4=on,ipv6=on,ipv6-net=fec0::/64", "-device", "virtio-net-pci,netdev=u0,mac=52:54:00:77:00:01,romfile=",
		"-netdev", "user,id=u1,restrict=on", "-device", "virtio-net-pci,netdev=u1,mac=52:54:00:77:00:02,romfile=",
		"-netdev", "user,id=u2,restrict=on", "-device", "virtio-net-pci,netdev=u2,mac=52:54:00:77:00:03,romfile=",
		"-serial", "file:"+serial, "-device", "virtio-rng-pci")
	vm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	vm.Stderr = &stderr
	began := time.Now()
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = vm.Wait() // it is killed
	}()
	defer func() {
		vm.Process.Kill()
		<-gone
		if b, err := os.ReadFile(serial); err == nil {
			t.Logf("console:\n%s\n%s", b, stderr.String())
		}
	}()
	awaitEnrolment(t, c, gone, serial)
	if h := c.WaitHello(1); h.NodeId != line.Node {
		t.Error(h)
	}
	t.Logf("power-on to hello: %.1f s", time.Since(began).Seconds())
	c.Hello(1)
	c.Command(1, "inv", agentproto.CmdInventory, nil)
	st := c.WaitEnd("inv")
	var inv agentproto.Inventory
	if err := json.Unmarshal(st.Result, &inv); err != nil {
		t.Fatal(st)
	}
	var addrs []string
	for _, i := range inv.Interfaces {
		addrs = append(addrs, i.Addrs...)
	}
	has := func(want string) bool {
		return slices.ContainsFunc(addrs, func(a string) bool { return strings.HasPrefix(a, want) })
	}
	if inv.BootMode != "uefi" || !has("10.0.2.77") || has("10.0.2.15") {
		t.Errorf("addresses %v, mode %s, inventory %s", addrs, inv.BootMode, st.Result)
	}
	console, err := os.ReadFile(serial)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.0.2.77/24", "fec0::77/64", "192.0.2.7/24", "nic=vlan"} {
		if !bytes.Contains(console, []byte(want)) {
			t.Errorf("the console does not tell of %s", want)
		}
	}
}

// hopeless is what a console shows, and how often, of an agent that will not
// come.
var hopeless = map[string]int{"Kernel panic": 1, "static network": 3, "cannot enrol": 5, "You need to load the kernel first": 1, "UEFI Interactive Shell": 1}

// awaitEnrolment waits for the agent's first call, and no longer than there is
// hope.
func awaitEnrolment(t *testing.T, c *agenttest.Cluster, gone <-chan struct{}, serial string) {
	t.Helper()
	limit := time.After(3 * time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for len(c.Enrols()) == 0 {
		select {
		case <-gone:
			t.Fatal("QEMU has ended")
		case <-limit:
			t.Fatal("no agent within 3 minutes")
		case <-tick.C:
		}
		console, err := os.ReadFile(serial)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for text, n := range hopeless {
			if bytes.Count(console, []byte(text)) >= n {
				t.Fatalf("the console says %q", text)
			}
		}
	}
}
