package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A host on a VLAN. Not every host's kernel knows VLANs, so that the tag is put
// on and taken off here, as the port of a switch does: frames of the VLAN on
// the image server's cable go into a tap device that is the server's leg there,
// and what the server sends by it leaves tagged.

// The tagged network at a site without DHCP. DNS and NTP are served only there.
const (
	taggedID   = 7
	TaggedHost = "10.79.0.5"
	taggedDev  = "tagged"
)

const (
	ethHeader = 14
	ethTag    = 4
	maxFrame  = 1 << 16
)

// PlugTagged gives the image server its leg on the VLAN. It stays until the lab
// closes.
func (l *Lab) PlugTagged(ctx context.Context) error {
	var tap *os.File
	var wire int
	err := inNamespace(l.NS("www"), func() (err error) {
		if tap, err = openTap(taggedDev); err != nil {
			return fmt.Errorf("tap device: %w", err)
		}
		if wire, err = openWire("prov"); err != nil {
			return errors.Join(fmt.Errorf("raw socket: %w", err), tap.Close())
		}
		return nil
	})
	if err != nil {
		return err
	}
	var closing atomic.Bool
	done := make(chan error, 2)
	go func() { done <- untag(tap, wire, &closing) }()
	go func() { done <- tag(wire, tap, &closing) }()
	l.Defer(func() error {
		closing.Store(true)
		err := tap.Close()
		return errors.Join(err, <-done, <-done, unix.Close(wire))
	})
	return l.ip(ctx, "www", "addr add "+TaggedHost+"/24 dev "+taggedDev, "link set "+taggedDev+" up")
}

// openTap makes a tap device in the namespace of the thread.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// wirePatience is how long a read of the wire waits before it looks whether the
// lab closes.
const wirePatience = 200 * time.Millisecond

// openWire opens the frames of an interface, in the namespace of the thread.
func openWire(dev string) (int, error) {
	nic, err := net.InterfaceByName(dev)
	if err != nil {
		return 0, err
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return 0, err
	}
	tv := unix.NsecToTimeval(int64(wirePatience))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nic.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// untag passes frames of the VLAN from the wire on without their tag.
func untag(tap *os.File, wire int, closing *atomic.Bool) error {
	frame, aux := make([]byte, maxFrame), make([]byte, 256)
	for !closing.Load() {
		n, auxn, _, from, err := unix.Recvmsg(wire, frame, aux, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the wire: %w", err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue // what tag sent
		}
		plain, id := plainFrame(frame[:n], aux[:auxn])
		if id != taggedID {
			continue
		}
		if _, err := tap.Write(plain); err != nil && !errors.Is(err, syscall.EIO) && !closing.Load() { // EIO: the device is down
			return fmt.Errorf("write to the tap: %w", err)
		}
	}
	return nil
}

// plainFrame is a frame without its tag, and the VLAN that it was of; 0 for
// none. Most kernels take the tag off before a raw socket sees the frame, and
// tell of it aside (packet(7), PACKET_AUXDATA).
func plainFrame(b, aux []byte) ([]byte, int) {
	if len(b) >= ethHeader+ethTag && binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_8021Q {
		id := int(binary.BigEndian.Uint16(b[14:]) & 0xfff)
		return append(b[:12], b[12+ethTag:]...), id
	}
	msgs, err := unix.ParseSocketControlMessage(aux)
	if err != nil {
		return b, 0
	}
	for _, m := range msgs {
		// struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 18 {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return b, int(binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff)
		}
	}
	return b, 0
}

// tag passes frames from the tap device to the wire with the tag of the VLAN.
func tag(wire int, tap *os.File, closing *atomic.Bool) error {
	frame := make([]byte, maxFrame)
	for {
		n, err := tap.Read(frame[ethTag:])
		if err != nil {
			if closing.Load() {
				return nil
			}
			return fmt.Errorf("read the tap: %w", err)
		}
		if n < ethHeader {
			continue
		}
		out := frame[:n+ethTag]
		copy(out, out[ethTag:ethTag+12])
		binary.BigEndian.PutUint16(out[12:], unix.ETH_P_8021Q)
		binary.BigEndian.PutUint16(out[14:], taggedID)
		if _, err := unix.Write(wire, out); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("write to the wire: %w", err)
		}
	}
}

// ServeNames starts a DNS server on the VLAN that knows one name, and logs who
// asks. It stays until the lab closes.
func (l *Lab) ServeNames(ctx context.Context, name, addr string) (*DNS, error) {
	d := &DNS{log: filepath.Join(l.Dir, "dns.log")}
	_, err := l.Start(Cmd{Name: "dnsmasq for names", NS: l.NS("www"), Log: d.log, Args: []string{
		"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
		"--listen-address=" + TaggedHost, "--bind-interfaces", "--log-queries", "--address=/" + name + "/" + addr,
	}})
	if err != nil {
		return nil, err
	}
	return d, Poll(ctx, "dnsmasq's start", l.Limit(10*time.Second), func() (bool, error) {
		b, err := os.ReadFile(d.log)
		return err == nil && len(b) > 0, err
	})
}

// DNS is a running DNS server.
type DNS struct{ log string }

// Log is what it wrote so far: a line for each question, with who asked.
func (d *DNS) Log() (string, error) {
	b, err := os.ReadFile(d.log)
	return string(b), err
}

// ServeTime answers SNTP (RFC 4330) on the VLAN with the time of this host. It
// stays until the lab closes.
func (l *Lab) ServeTime() error {
	var conn net.PacketConn
	err := inNamespace(l.NS("www"), func() (err error) {
		conn, err = net.ListenPacket("udp", TaggedHost+":123")
		return err
	})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= 48 {
				l.Logf("time server: asked by %s", from)
				_, _ = conn.WriteTo(sntpReply(b[:48], time.Now()), from)
			}
		}
	}()
	l.Defer(func() error {
		err := conn.Close()
		<-done
		return err
	})
	return nil
}

// sntpReply is the answer to a request at a time: version 4, server, stratum 1.
func sntpReply(req []byte, now time.Time) []byte {
	const epoch1900 = 2208988800
	b := make([]byte, 48)
	b[0], b[1] = 4<<3|4, 1
	copy(b[24:32], req[40:48])
	at := uint64(now.Unix()+epoch1900)<<32 | uint64(now.Nanosecond())<<32/1e9 //nolint:gosec // after 1900
	for _, field := range []int{16, 32, 40} {
		binary.BigEndian.PutUint64(b[field:], at)
	}
	return b
}
