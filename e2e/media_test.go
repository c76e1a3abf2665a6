//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

var plugStatic = sync.OnceValues(func() (*harness.DNS, error) { return lab.PlugStatic(context.Background()) })

// TestVirtualMedia deploys a machine at a site without DHCP: its BMC, which
// speaks Redfish, reads the boot medium from a peer, the firmware boots it as
// a CD, and the agent has the node's static network: IPv4 and IPv6 on a bond,
// and a VLAN on it, by which it gets the time for a clock that is years behind
// and the address of the image server, which is asked by IPv6. The drive is
// empty when the image runs.
func TestVirtualMedia(t *testing.T) {
	dns, err := plugStatic()
	if err != nil {
		t.Fatal(err)
	}
	runCaseOf(t, harness.ClusterSpec{Name: "virtual-media", Static: true}, func(ctx context.Context, k *kase) error {
		if err := noDHCP(ctx, k.Peers); err != nil {
			return err
		}
		dir, err := ramdisk()
		if err != nil {
			return err
		}
		if err := k.CLI(ctx, nil, "ramdisk", "publish", dir); err != nil {
			return err
		}
		vm, err := k.bare(harness.VMSpec{Index: 1, Media: true, TwoNICs: true, RTC: "2001-02-03T04:05:06"})
		if err != nil {
			return err
		}
		bmc, err := lab.NewRedfish(ctx, vm)
		if err != nil {
			return err
		}
		k.bmcs = append(k.bmcs, bmc)
		if err := k.enrolMedia(ctx, "n1", vm, bmc, harness.StaticNetwork(vm, 150)); err != nil {
			return err
		}
		first := vm.Console.Mark()
		if err := k.verb(ctx, "n1", "provide", "AVAILABLE", 4*time.Minute); err != nil {
			return err
		}
		if err := k.bootTime(ctx, "n1", vm); err != nil {
			return err
		}
		for _, addr := range []string{"10.77.0.150/24", "fd79::150/64", "10.79.0.150/24"} {
			if _, err := vm.Console.Wait(ctx, first, "addr="+addr, time.Second); err != nil {
				return fmt.Errorf("static address: %w", err)
			}
		}
		if _, err := vm.Console.Wait(ctx, first, "clock set by NTP server="+harness.TaggedHost, lab.Limit(20*time.Second)); err != nil {
			return fmt.Errorf("time by the VLAN: %w", err)
		}
		if err := k.timelineHas(ctx, "n1", "GET boot medium from "+harness.BMCAddr(1)+": 200", "agent enrolled from 10.77.0.150"); err != nil {
			return err
		}
		img, url, err := image(k.name, 0)
		if err != nil {
			return err
		}
		url = strings.Replace(url, harness.ImageHost, harness.ImageName, 1)
		before, err := vm.Written()
		if err != nil {
			return err
		}
		mark := vm.Console.Mark()
		if err := k.verb(ctx, "n1", "deploy", "ACTIVE", 6*time.Minute, "--image", url, "--checksum", "sha256:"+img.SHA256); err != nil {
			return err
		}
		if err := k.boots(ctx, vm, mark, img); err != nil {
			return err
		}
		if in := bmc.Image(); in != "" || vm.Medium() != "" {
			return fmt.Errorf("the drive still holds %q", in)
		}
		srv, err := images()
		if err != nil {
			return err
		}
		for _, r := range srv.Requests(img) {
			if !strings.Contains(r, "[fd79::150]") {
				return fmt.Errorf("the image was fetched by another way: %s", r)
			}
		}
		asked, err := dns.Log()
		if err != nil {
			return err
		}
		if want := harness.ImageName + " from 10.79.0.150"; !strings.Contains(asked, want) {
			return fmt.Errorf("the DNS server has seen no question for %s:\n%s", want, asked)
		}
		return writtenOnce(vm, before, img)
	})
}

// enrolMedia creates a node that boots from virtual media and makes it
// manageable.
func (k *kase) enrolMedia(ctx context.Context, name string, vm *harness.VM, bmc *harness.Redfish, network string) error {
	password := filepath.Join(lab.Dir, k.name, "bmc-password")
	info := bmc.Info()
	if err := os.WriteFile(password, []byte(info["redfish_password"].(string)), 0o600); err != nil {
		return err
	}
	k.nodes = append(k.nodes, name)
	args := []string{"node", "create", "--name", name, "--driver", "redfish", "--port", vm.MAC, "--property", "network_data:=" + network}
	for _, kv := range []string{
		"boot_interface=virtual-media", "redfish_address=" + bmc.URL(), fmt.Sprint("redfish_system_id=", info["redfish_system_id"]),
		fmt.Sprint("redfish_username=", info["redfish_username"]), "redfish_password=@" + password, "redfish_verify_ca=@" + bmc.CAFile,
	} {
		args = append(args, "--driver-info", kv)
	}
	if err := k.CLI(ctx, nil, args...); err != nil {
		return err
	}
	return k.verb(ctx, name, "manage", "MANAGEABLE", 60*time.Second)
}

// noDHCP checks that no peer listens for DHCP.
func noDHCP(ctx context.Context, peers []*harness.Peer) error {
	for _, p := range peers {
		out, err := lab.Output(ctx, harness.Cmd{Name: "ss", NS: lab.NS(p.ID), Args: []string{"ss", "-H", "-lun", "sport = :67 or sport = :4011"}})
		if err != nil || strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s listens for DHCP: %s %w", p.ID, out, err)
		}
	}
	return nil
}
