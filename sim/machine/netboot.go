package machine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/pin/tftp/v3"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/sim/ipxe"
)

// What the firmware and iPXE do, from the first DHCP packet to the kernel line.

const (
	dhcpTry    = time.Second
	dhcpTries  = 5
	fetchLimit = 30 * time.Second
)

// netboot asks the network for a ramdisk. ok is false when it was told to boot
// from elsewhere, or got no boot file.
func (m *Machine) netboot(ctx context.Context) (line agent.Line, ok bool, err error) {
	lease, err := m.dhcp(ctx, false)
	if err != nil {
		return line, false, err
	}
	if lease.BootFileName == "" {
		return line, false, nil
	}
	if err := m.tftp(lease); err != nil {
		return line, false, err
	}
	x := &firmware{m: m}
	set, err := x.DHCP(ctx)
	if err != nil {
		return line, false, err
	}
	if set["filename"] == "" {
		return line, false, nil
	}
	script, err := x.Script(ctx, set["filename"], fetchLimit)
	if err != nil {
		return line, false, err
	}
	out, err := ipxe.Run(ctx, x, script, set)
	if err != nil || !out.Booted {
		return line, false, err
	}
	line, err = agent.ParseLine(out.Line)
	return line, err == nil, err
}

// dhcp is a whole exchange, DISCOVER to ACK, as a relay agent on an
// unprivileged port (RFC 8357).
func (m *Machine) dhcp(ctx context.Context, asIPXE bool) (*dhcpv4.DHCPv4, error) {
	mac, err := net.ParseMAC(m.cfg.MAC)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.cfg.Relay, 0)))
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing is written behind it
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	vendor := "PXEClient:Arch:00007:UNDI:003016"
	mods := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(vendor)),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionBootfileName, dhcpv4.OptionTFTPServerName),
		m.relayed(conn),
	}
	if asIPXE {
		mods = append(mods, dhcpv4.WithUserClass("iPXE", false))
	}
	start := time.Now()
	for try := 0; try < dhcpTries; try++ {
		if try > 0 {
			m.count(func(st *Stats) { st.DHCPAgain++ })
		}
		secs := dhcpv4.Modifier(func(p *dhcpv4.DHCPv4) { p.NumSeconds = uint16(try) })
		discover, err := dhcpv4.NewDiscovery(mac, append(mods, secs)...)
		if err != nil {
			return nil, err
		}
		offer, err := m.exchange(ctx, conn, discover, m.cfg.Servers, dhcpv4.MessageTypeOffer)
		if err != nil {
			return nil, err
		}
		if offer == nil {
			continue
		}
		request, err := dhcpv4.NewRequestFromOffer(offer, append(mods, secs)...)
		if err != nil {
			return nil, err
		}
		ack, err := m.exchange(ctx, conn, request, m.cfg.Servers, dhcpv4.MessageTypeAck)
		if err != nil {
			return nil, err
		}
		if ack != nil {
			m.count(func(st *Stats) { st.DHCP = append(st.DHCP, time.Since(start)) })
			return ack, nil
		}
	}
	return nil, fmt.Errorf("no DHCP answer")
}

// relayed adds what a relay agent adds: its address, and in option 82 the port
// that it listens on.
func (m *Machine) relayed(conn *net.UDPConn) dhcpv4.Modifier {
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return func(p *dhcpv4.DHCPv4) {
		p.GatewayIPAddr = m.cfg.Relay.AsSlice()
		p.HopCount = 1
		p.UpdateOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(19), []byte{byte(port >> 8), byte(port)})))
	}
}

// exchange sends a packet to all servers and gives the first answer of a kind,
// or nil when there was none in time.
func (m *Machine) exchange(ctx context.Context, conn *net.UDPConn, p *dhcpv4.DHCPv4, servers []netip.AddrPort, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	for _, s := range servers {
		if _, err := conn.WriteToUDPAddrPort(p.ToBytes(), s); err != nil {
			return nil, fmt.Errorf("relay to %s: %w", s, err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(dhcpTry)); err != nil {
		return nil, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, nil // time is up, or a server's port is closed: ask again
		}
		r, err := dhcpv4.FromBytes(buf[:n])
		if err == nil && r.TransactionID == p.TransactionID && r.MessageType() == want {
			return r, nil
		}
	}
}

// tftp fetches the first stage, which is not run: the script behind it is.
func (m *Machine) tftp(lease *dhcpv4.DHCPv4) error {
	c, err := tftp.NewClient(net.JoinHostPort(lease.ServerIPAddr.String(), strconv.Itoa(int(m.cfg.TFTPPort))))
	if err != nil {
		return err
	}
	if err := c.SetLocalAddr(lease.YourIPAddr.String()); err != nil {
		return err
	}
	c.SetTimeout(2 * time.Second)
	r, err := c.Receive(lease.BootFileName, "octet")
	if err != nil {
		return fmt.Errorf("tftp %s: %w", lease.BootFileName, err)
	}
	n, err := r.WriteTo(io.Discard)
	if err == nil && n == 0 {
		err = fmt.Errorf("empty file")
	}
	if err != nil {
		return fmt.Errorf("tftp %s: %w", lease.BootFileName, err)
	}
	return nil
}

// firmware is the machine as boot scripts see it.
type firmware struct {
	m    *Machine
	from netip.Addr // address that the lease gave
}

// DHCP implements ipxe.Machine.
func (x *firmware) DHCP(ctx context.Context) (ipxe.Settings, error) {
	ack, err := x.m.dhcp(ctx, true)
	if err != nil {
		return nil, err
	}
	x.from, _ = netip.AddrFromSlice(ack.YourIPAddr.To4())
	return ipxe.Settings{
		"next-server": ack.ServerIPAddr.String(), "filename": ack.BootFileName,
		"net0/mac": x.m.cfg.MAC, "mac": x.m.cfg.MAC, "mac:hexhyp": strings.ReplaceAll(x.m.cfg.MAC, ":", "-"),
	}, nil
}

// Fetch implements ipxe.Machine: the bytes are counted, not kept.
func (x *firmware) Fetch(ctx context.Context, name, url string, timeout time.Duration) error {
	return x.get(ctx, url, timeout, io.Discard)
}

// Script implements ipxe.Machine.
func (x *firmware) Script(ctx context.Context, url string, timeout time.Duration) (string, error) {
	var b bytes.Buffer
	err := x.get(ctx, url, timeout, &b)
	return b.String(), err
}

// Sleep implements ipxe.Machine.
func (x *firmware) Sleep(ctx context.Context, d time.Duration) error {
	_ = clock.Pause(ctx, d)
	return ctx.Err()
}

// Print implements ipxe.Machine.
func (x *firmware) Print(line string) {
	x.m.cfg.Logger.Debug("console", "machine", x.m.cfg.Name, "line", line)
}

// get fetches over HTTP from the address that the machine was given.
func (x *firmware) get(ctx context.Context, ref string, timeout time.Duration, to io.Writer) error {
	if _, err := url.Parse(ref); err != nil {
		return err
	}
	if timeout <= 0 {
		timeout = fetchLimit
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dialer := net.Dialer{}
	if x.from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(x.from, 0))
	}
	tr := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ref, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "iPXE/simulated")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end, or given up
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", ref, resp.Status)
	}
	_, err = io.Copy(to, resp.Body)
	return err
}
