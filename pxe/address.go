package pxe

import (
	"net"
	"net/netip"
)

// host looks up the addresses of this host; replaced in tests.
type host interface {
	addrs() []netip.Addr              // of all interfaces
	addrsOf(ifindex int) []netip.Addr // of one
}

// kernelHost asks the kernel each time: addresses come and go, and boot
// requests are rare.
type kernelHost struct{}

func (kernelHost) addrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil // as if there were none: requests are answered with silence
	}
	return ipv4Of(list)
}

func (kernelHost) addrsOf(ifindex int) []netip.Addr {
	ifi, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return nil
	}
	list, err := ifi.Addrs()
	if err != nil {
		return nil
	}
	return ipv4Of(list)
}

func ipv4Of(list []net.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP.To4()); ok {
				out = append(out, ip)
			}
		}
	}
	return out
}

// configured is a peer whose provisioning addresses are given.
type configured []netip.Addr

func (c configured) addrs() []netip.Addr { return c }

// addrsOf leaves out configured addresses that are not on the interface,
// because a client there would get the address of another network.
func (c configured) addrsOf(ifindex int) []netip.Addr {
	var out []netip.Addr
	for _, a := range (kernelHost{}).addrsOf(ifindex) {
		for _, own := range c {
			if a == own {
				out = append(out, a)
			}
		}
	}
	return out
}
