//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The few requests of rtnetlink (rtnetlink(7)) that a static network needs.
// Numbers are in the order of the host.

var host = binary.NativeEndian

// attribute is a struct rtattr with its value, padded.
func attribute(kind uint16, value []byte) []byte {
	b := make([]byte, 4, 4+len(value)+3)
	host.PutUint16(b, uint16(4+len(value))) //nolint:gosec // values are short
	host.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attribute32(kind uint16, n uint32) []byte {
	return attribute(kind, host.AppendUint32(nil, n))
}

func attributeText(kind uint16, s string) []byte { return attribute(kind, append([]byte(s), 0)) }

// message is a whole request.
func message(kind, flags uint16, header []byte, attributes ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr)
	b = append(b, header...)
	for _, a := range attributes {
		b = append(b, a...)
	}
	host.PutUint32(b, uint32(len(b))) //nolint:gosec // requests are short
	host.PutUint16(b[4:], kind)
	host.PutUint16(b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	host.PutUint32(b[8:], 1) // one request on one socket
	return b
}

// ask sends a request and reads its acknowledgement.
func ask(request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	return acknowledged(buf[:n])
}

// acknowledged reads a struct nlmsgerr.
func acknowledged(b []byte) error {
	if len(b) < unix.SizeofNlMsghdr+4 || host.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("netlink: an answer of %d bytes is no acknowledgement", len(b))
	}
	if code := int32(host.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 { //nolint:gosec // it is signed
		return unix.Errno(-code)
	}
	return nil
}

// linkHeader is a struct ifinfomsg: change the flags in mask to flags.
func linkHeader(index int, flags, mask uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	host.PutUint32(b[4:], uint32(index)) //nolint:gosec // indexes are small
	host.PutUint32(b[8:], flags)
	host.PutUint32(b[12:], mask)
	return b
}

const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

func vlanRequest(name string, parent, id int, mac net.HardwareAddr) []byte {
	attrs := [][]byte{
		attributeText(unix.IFLA_IFNAME, name), attribute32(unix.IFLA_LINK, uint32(parent)), //nolint:gosec // indexes are small
		attribute(unix.IFLA_LINKINFO, append(attributeText(unix.IFLA_INFO_KIND, "vlan"),
			attribute(unix.IFLA_INFO_DATA, attribute(unix.IFLA_VLAN_ID, host.AppendUint16(nil, uint16(id))))...)), //nolint:gosec // 1 to 4094
	}
	if mac != nil {
		attrs = append(attrs, attribute(unix.IFLA_ADDRESS, mac))
	}
	return message(unix.RTM_NEWLINK, create, linkHeader(0, 0, 0), attrs...)
}

// bondRequest makes a bond; its options are set in sysfs, by name.
func bondRequest(name string, mac net.HardwareAddr) []byte {
	attrs := [][]byte{attributeText(unix.IFLA_IFNAME, name), attribute(unix.IFLA_LINKINFO, attributeText(unix.IFLA_INFO_KIND, "bond"))}
	if mac != nil {
		attrs = append(attrs, attribute(unix.IFLA_ADDRESS, mac))
	}
	return message(unix.RTM_NEWLINK, create, linkHeader(0, 0, 0), attrs...)
}

// enslaveRequest puts an interface, which must be down, into a bond.
func enslaveRequest(index, bond int) []byte {
	return message(unix.RTM_NEWLINK, 0, linkHeader(index, 0, 0), attribute32(unix.IFLA_MASTER, uint32(bond))) //nolint:gosec // indexes are small
}

// upRequest switches an interface on or off, and sets its MTU if there is one.
func upRequest(index int, up bool, mtu int) []byte {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	var attrs [][]byte
	if mtu > 0 {
		attrs = append(attrs, attribute32(unix.IFLA_MTU, uint32(mtu))) //nolint:gosec // at most 65535
	}
	return message(unix.RTM_NEWLINK, 0, linkHeader(index, flags, unix.IFF_UP), attrs...)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addressRequest adds an address. An IPv6 one is used at once: nobody else has
// what is configured, and a search for doubles would take a second.
func addressRequest(index int, p netip.Prefix) []byte {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(p.Addr()), byte(p.Bits()) //nolint:gosec // at most 128
	host.PutUint32(h[4:], uint32(index))          //nolint:gosec // indexes are small
	raw := p.Addr().AsSlice()
	attrs := [][]byte{attribute(unix.IFA_LOCAL, raw), attribute(unix.IFA_ADDRESS, raw)}
	if p.Addr().Is6() {
		h[2] = unix.IFA_F_NODAD
	}
	return message(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h, attrs...)
}

func routeRequest(index int, to netip.Prefix, gateway netip.Addr) []byte {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(gateway), byte(to.Bits()) //nolint:gosec // at most 128
	h[4], h[5], h[6], h[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	attrs := [][]byte{attribute(unix.RTA_GATEWAY, gateway.AsSlice()), attribute32(unix.RTA_OIF, uint32(index))} //nolint:gosec // indexes are small
	if to.Bits() > 0 {
		attrs = append(attrs, attribute(unix.RTA_DST, to.Addr().AsSlice()))
	}
	return message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h, attrs...)
}
