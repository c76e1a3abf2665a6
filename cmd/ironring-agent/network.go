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
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/clock"
)

const (
	nicLimit     = 60 * time.Second // until the NIC must be there
	carrierLimit = 30 * time.Second // until DHCP is tried without a carrier
	poll         = 10 * time.Millisecond
)

// bringUp gets the machine an address on the NIC that it booted from, or, if
// the kernel line does not name one, on the first NIC that gets an answer.
func bringUp(ctx context.Context, bootMAC string, log *slog.Logger) error {
	if err := setUp("lo"); err != nil {
		log.Warn("loopback interface", "err", err)
	}
	nics, err := findNICs(ctx, bootMAC)
	if err != nil {
		return err
	}
	for _, n := range nics {
		if err := setUp(n.Name); err != nil {
			return fmt.Errorf("bring up %s: %w", n.Name, err)
		}
	}
	nic := awaitCarrier(ctx, nics, log)
	log.Info("network card is up", "nic", nic.Name, "mac", nic.HardwareAddr.String(), "others", len(nics)-1)
	began := time.Now()
	for try := 0; ; try++ {
		lease, err := request(ctx, nic.Name)
		if err == nil {
			if err := lease.apply(nic.Name); err != nil {
				return fmt.Errorf("set address of %s: %w", nic.Name, err)
			}
			log.Info("address", "nic", nic.Name, "addr", lease.String(), "gateway", lease.router.String(), "server", lease.server.String())
			go renew(ctx, nic.Name, lease, log)
			return nil
		}
		log.Warn("no address yet", "nic", nic.Name, "err", err)
		if time.Since(began) > dhcpLimit {
			return fmt.Errorf("no address for %s in %s: %w", nic.Name, dhcpLimit, err)
		}
		nic = nics[(try+1)%len(nics)]
	}
}

// findNICs waits for the NIC with that MAC; without one, for any.
func findNICs(ctx context.Context, mac string) ([]net.Interface, error) {
	end := time.Now().Add(nicLimit)
	for {
		all, err := net.Interfaces()
		if err != nil {
			return nil, fmt.Errorf("list network cards: %w", err)
		}
		var found, others []net.Interface
		var seen []string
		for _, n := range all {
			if len(n.HardwareAddr) != 6 || n.Flags&net.FlagLoopback != 0 {
				continue
			}
			seen = append(seen, n.Name+" "+n.HardwareAddr.String())
			if mac != "" && n.HardwareAddr.String() == mac {
				found = append(found, n)
			} else {
				others = append(others, n)
			}
		}
		if mac == "" {
			found = others
		}
		if len(found) > 0 {
			return found, nil
		}
		if time.Now().After(end) {
			if mac == "" {
				return nil, errors.New("the machine has no network card with a driver in the ramdisk")
			}
			return nil, fmt.Errorf("no network card has the address %s that the machine booted from; there are: %s", mac, strings.Join(seen, ", "))
		}
		if err := clock.Pause(ctx, poll); err != nil {
			return nil, err
		}
	}
}

// awaitCarrier returns the first NIC with a link, or the first of all when no
// link comes: some drivers do not tell.
func awaitCarrier(ctx context.Context, nics []net.Interface, log *slog.Logger) net.Interface {
	end := time.Now().Add(carrierLimit)
	for time.Now().Before(end) {
		for _, n := range nics {
			if b, err := os.ReadFile("/sys/class/net/" + n.Name + "/carrier"); err == nil && strings.TrimSpace(string(b)) == "1" {
				return n
			}
		}
		if clock.Pause(ctx, poll) != nil {
			break
		}
	}
	log.Warn("no network card has a link", "cards", len(nics))
	return nics[0]
}

// withSocket gives f a socket for ioctls on network interfaces.
func withSocket(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func setUp(name string) error {
	return withSocket(func(fd int) error {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
			return err
		}
		r.SetUint16(r.Uint16() | unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
}

// setAddress gives the NIC one IPv4 address.
func setAddress(name string, ip net.IP, mask net.IPMask) error {
	return withSocket(func(fd int) error {
		for _, s := range []struct {
			req uint
			ip  []byte
		}{{unix.SIOCSIFADDR, ip.To4()}, {unix.SIOCSIFNETMASK, mask}} {
			r, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			if err := r.SetInet4Addr(s.ip); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(fd, s.req, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func setMTU(name string, mtu uint32) error {
	return withSocket(func(fd int) error {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		r.SetUint32(mtu)
		return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r)
	})
}

// rtentry is struct rtentry of <linux/route.h> on 64-bit machines.
type rtentry struct {
	_       uint64
	dst     sockaddr
	gateway sockaddr
	mask    sockaddr
	flags   uint16
	_       int16
	_       uint64
	_       uintptr
	metric  int16
	dev     unsafe.Pointer
	mtu     uint64
	window  uint64
	irtt    uint16
}

// sockaddr is an IPv4 struct sockaddr_in.
type sockaddr struct {
	family uint16
	port   uint16
	addr   [4]byte
	_      [8]byte
}

func inet(ip net.IP) sockaddr {
	s := sockaddr{family: unix.AF_INET}
	copy(s.addr[:], ip.To4())
	return s
}

// setDefaultRoute sends what is not local to the gateway.
func setDefaultRoute(gateway net.IP) error {
	const up, viaGateway = 1, 2 // RTF_UP, RTF_GATEWAY
	rt := rtentry{dst: inet(net.IPv4zero), mask: inet(net.IPv4zero), gateway: inet(gateway), flags: up | viaGateway}
	return withSocket(func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&rt))); e != 0 && e != unix.EEXIST {
			return e
		}
		return nil
	})
}

// seconds reads an option of four bytes, 0 when it is another length.
func seconds(b []byte) time.Duration {
	if len(b) != 4 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
}
