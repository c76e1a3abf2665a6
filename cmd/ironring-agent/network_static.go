//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/netdata"
)

// staticNetwork reads the network data of a boot medium; nil when there is
// none, and the machine asks for an address as usual.
func staticNetwork(path string) (*netdata.Data, error) {
	doc, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return netdata.Parse(doc)
}

// bringUpStatic sets the network up as the data says: links from below, their
// addresses and routes, name servers, and the clock by NTP if it can be had.
// load makes a kernel module available.
func bringUpStatic(ctx context.Context, d *netdata.Data, load func(module string), log *slog.Logger) error {
	if err := setUp("lo"); err != nil {
		log.Warn("loopback interface", "err", err)
	}
	names := map[string]string{} // of the interfaces, by link
	for _, l := range d.Links {
		name, err := makeLink(ctx, l, names, load)
		if err != nil {
			return fmt.Errorf("link %s: %w", l.ID, err)
		}
		names[l.ID] = name
	}
	for _, l := range d.Links {
		if err := configure(ctx, l, names[l.ID], log); err != nil {
			return fmt.Errorf("link %s (%s): %w", l.ID, names[l.ID], err)
		}
	}
	if err := writeResolvers(d.DNS); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	if len(d.NTP) > 0 {
		go setClock(ctx, d.NTP, log)
	}
	return nil
}

// makeLink finds or makes the interface of a link and switches it on.
func makeLink(ctx context.Context, l netdata.Link, names map[string]string, load func(string)) (name string, err error) {
	var mac net.HardwareAddr
	if l.MAC != "" {
		if mac, err = net.ParseMAC(l.MAC); err != nil {
			return "", err
		}
	}
	switch l.Type {
	case netdata.Bond:
		load("bonding")
		name = fmt.Sprintf("bond%d", len(names))
		if err := makeBond(name, l, mac, names); err != nil {
			return "", err
		}
	case netdata.VLAN:
		load("8021q")
		parent, err := net.InterfaceByName(names[l.Parent])
		if err != nil {
			return "", err
		}
		name = fmt.Sprintf("vlan%d.%d", len(names), l.VLAN)
		if err := ask(vlanRequest(name, parent.Index, l.VLAN, mac)); err != nil {
			return "", fmt.Errorf("make VLAN %d on %s: %w", l.VLAN, parent.Name, err)
		}
	default:
		nics, err := findNICs(ctx, l.MAC)
		if err != nil {
			return "", err
		}
		name = nics[0].Name
	}
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return "", err
	}
	if err := ask(upRequest(nic.Index, true, l.MTU)); err != nil {
		return "", fmt.Errorf("switch %s on: %w", name, err)
	}
	return name, nil
}

// makeBond makes a bond of interfaces that are there. Its mode must be set
// before it has members.
func makeBond(name string, l netdata.Link, mac net.HardwareAddr, names map[string]string) error {
	if err := ask(bondRequest(name, mac)); err != nil {
		return fmt.Errorf("make bond: %w", err)
	}
	bond, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	dir := "/sys/class/net/" + name + "/bonding/"
	if err := os.WriteFile(dir+"mode", []byte(l.BondMode), 0); err != nil {
		return fmt.Errorf("bond mode %s: %w", l.BondMode, err)
	}
	for _, opt := range []string{"miimon", "lacp_rate", "xmit_hash_policy"} {
		if v := l.BondOpts[opt]; v != "" {
			if err := os.WriteFile(dir+opt, []byte(v), 0); err != nil {
				return fmt.Errorf("bond %s %s: %w", opt, v, err)
			}
		}
	}
	for _, m := range l.Members {
		nic, err := net.InterfaceByName(names[m])
		if err != nil {
			return err
		}
		if err := ask(upRequest(nic.Index, false, 0)); err != nil {
			return fmt.Errorf("switch %s off: %w", nic.Name, err)
		}
		if err := ask(enslaveRequest(nic.Index, bond.Index)); err != nil {
			return fmt.Errorf("put %s into the bond: %w", nic.Name, err)
		}
		if err := ask(upRequest(nic.Index, true, 0)); err != nil {
			return fmt.Errorf("switch %s on: %w", nic.Name, err)
		}
	}
	return nil
}

// configure gives an interface its addresses and routes.
func configure(ctx context.Context, l netdata.Link, name string, log *slog.Logger) error {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if len(l.Addresses) == 0 && !l.DHCP {
		return nil
	}
	awaitCarrier(ctx, []net.Interface{*nic}, log)
	for _, p := range l.Addresses {
		if err := ask(addressRequest(nic.Index, p)); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
		log.Info("static address", "nic", name, "mac", nic.HardwareAddr.String(), "addr", p.String())
	}
	for _, r := range l.Routes {
		if err := ask(routeRequest(nic.Index, r.To, r.Gateway)); err != nil {
			return fmt.Errorf("route to %s by %s: %w", r.To, r.Gateway, err)
		}
	}
	if !l.DHCP {
		return nil
	}
	lease, err := request(ctx, name)
	if err != nil {
		return err
	}
	if err := lease.apply(name); err != nil {
		return err
	}
	log.Info("address", "nic", name, "addr", lease.String())
	go renew(ctx, name, lease, log)
	return nil
}

func writeResolvers(servers []netip.Addr) error {
	if len(servers) == 0 {
		return nil
	}
	var b strings.Builder
	for _, a := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	return os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644)
}

// staticRetry is the pause between two attempts at the static network.
const staticRetry = 5 * time.Second

// network brings the machine into the network: by the data of its boot medium,
// else by DHCP on the NIC with a MAC.
func network(ctx context.Context, bootMAC string, load func(module string), log *slog.Logger) error {
	d, err := staticNetwork(netdata.Path)
	if err != nil {
		return err
	}
	if d == nil {
		return bringUp(ctx, bootMAC, log)
	}
	if err := bringUpStatic(ctx, d, load, log); err != nil {
		// A restart begins anew, with what may be another medium.
		_ = clock.Pause(ctx, staticRetry) // the consoles need a moment
		return fmt.Errorf("static network: %w", err)
	}
	return nil
}
