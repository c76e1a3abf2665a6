//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/ironring/ironring/internal/clock"
)

// dhcpLimit is how long an address may take; then the machine restarts.
const dhcpLimit = 10 * time.Minute

// lease is what the DHCP server gave.
type lease struct {
	ip     net.IP
	mask   net.IPMask
	router net.IP // nil: none
	server net.IP
	dns    []net.IP
	mtu    uint16 // 0: not said
	life   time.Duration
}

// request asks for an address: sends again after 1, 2 and 4 s.
func request(ctx context.Context, nic string) (*lease, error) {
	c, err := nclient4.New(nic, nclient4.WithTimeout(time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, fmt.Errorf("dhcp on %s: %w", nic, err)
	}
	defer c.Close()
	l, err := c.Request(ctx,
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("ironring-agent")),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionInterfaceMTU))
	if err != nil {
		return nil, fmt.Errorf("dhcp on %s: %w", nic, err)
	}
	return leaseOf(l.ACK)
}

// leaseOf reads the answer. Without a mask the address's class tells it.
func leaseOf(ack *dhcpv4.DHCPv4) (*lease, error) {
	l := &lease{ip: ack.YourIPAddr.To4(), mask: ack.SubnetMask(), server: ack.ServerIdentifier(), dns: ack.DNS()}
	if l.ip == nil || l.ip.IsUnspecified() {
		return nil, errors.New("dhcp: the answer has no address")
	}
	if len(l.mask) != net.IPv4len {
		l.mask = l.ip.DefaultMask()
	}
	if rs := ack.Router(); len(rs) > 0 && !rs[0].IsUnspecified() {
		l.router = rs[0]
	}
	if b := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if mtu := binary.BigEndian.Uint16(b); mtu >= 576 {
			l.mtu = mtu
		}
	}
	l.life = seconds(ack.Options.Get(dhcpv4.OptionIPAddressLeaseTime))
	return l, nil
}

func (l *lease) String() string { return (&net.IPNet{IP: l.ip, Mask: l.mask}).String() }

// apply gives the NIC what the lease says.
func (l *lease) apply(nic string) error {
	if err := setAddress(nic, l.ip, l.mask); err != nil {
		return err
	}
	if l.mtu != 0 {
		if err := setMTU(nic, uint32(l.mtu)); err != nil {
			return fmt.Errorf("mtu %d: %w", l.mtu, err)
		}
	}
	if l.router != nil {
		if err := setDefaultRoute(l.router); err != nil {
			return fmt.Errorf("default route by %s: %w", l.router, err)
		}
	}
	if len(l.dns) == 0 {
		return nil
	}
	var b strings.Builder
	for _, d := range l.dns {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	return os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644)
}

// renew asks again at half of the lease, from scratch: any peer answers, and
// all give the same address, while the one that gave it may be gone. Without
// an answer the address stays: nobody else gets it.
func renew(ctx context.Context, nic string, l *lease, log *slog.Logger) {
	for {
		wait := l.life / 2
		if wait < 30*time.Second {
			wait = 30 * time.Second
		}
		if clock.Pause(ctx, wait) != nil {
			return
		}
		next, err := request(ctx, nic)
		if err != nil {
			log.Warn("the address is not renewed", "nic", nic, "err", err)
			continue
		}
		if !next.ip.Equal(l.ip) {
			log.Warn("the address changes", "nic", nic, "from", l.String(), "to", next.String())
			if err := next.apply(nic); err != nil {
				log.Error("the new address is not set", "nic", nic, "err", err)
			}
		}
		l = next
	}
}
