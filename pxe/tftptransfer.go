package pxe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TFTP as RFC 1350 has it, with the options of RFC 2347 that boot programs
// need: blksize (2348) and tsize (2349).
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOAck  = 6

	plainBlock = 512 // without blksize
	// A client may ask for as little as 8 (RFC 2348). Who asks for less than
	// without the option is not given it: it would take that many more packets.
	leastBlock = plainBlock
	mostBlock  = 65464
	headers    = 20 + 8 + 4 // of IPv4, UDP and TFTP, before a block

	// Error codes.
	errUndefined = 0
	errNotFound  = 1
	errAccess    = 2
)

// tftpRequest is the first packet of a client.
type tftpRequest struct {
	op         uint16 // opRead or opWrite
	name, mode string
	options    [][2]string // in the order of the client, names in lower case
}

// parseTFTP reads a request; false for everything else. That a last NUL is
// missing is forgiven.
func parseTFTP(b []byte) (tftpRequest, bool) {
	if len(b) < 4 {
		return tftpRequest{}, false
	}
	r := tftpRequest{op: binary.BigEndian.Uint16(b)}
	if r.op != opRead && r.op != opWrite {
		return tftpRequest{}, false
	}
	parts := strings.Split(string(b[2:]), "\x00")
	if len(parts) < 2 {
		return tftpRequest{}, false
	}
	r.name, r.mode = parts[0], strings.ToLower(parts[1])
	for parts = parts[2:]; len(parts) >= 2; parts = parts[2:] {
		r.options = append(r.options, [2]string{strings.ToLower(parts[0]), parts[1]})
	}
	return r, true
}

// negotiate is the block size, of at most the given one, and the packet that
// accepts options; nil when none is. Each option counts once.
func (r tftpRequest) negotiate(size, most int) (block int, accept []byte) {
	block = plainBlock
	told := map[string]bool{}
	say := func(name string, value int) {
		told[name] = true
		accept = fmt.Appendf(accept, "%s\x00%d\x00", name, value)
	}
	for _, o := range r.options {
		n, err := strconv.Atoi(o[1])
		switch {
		case err != nil || told[o[0]]:
		case o[0] == "blksize" && n >= leastBlock && n <= mostBlock:
			block = min(n, most)
			say(o[0], block)
		case o[0] == "tsize":
			say(o[0], size)
		}
	}
	if accept != nil {
		accept = append([]byte{0, opOAck}, accept...)
	}
	return block, accept
}

var (
	errStopping  = errors.New("the server is stopping")
	errNoAnswer  = errors.New("the client does not answer")
	errClientEnd = errors.New("the client broke off")
	errGaveWay   = errors.New("the client does not answer, and others wait")
	errTooSlow   = errors.New("the client took too long for the whole file")
)

// transfer sends to one client from a port of its own.
type transfer struct {
	ctx   context.Context // ends transfers at their next packet
	place *slot
	conn  *net.UDPConn
	raw   syscall.RawConn
	to    netip.AddrPort
	in    [plainBlock]byte
}

// newTransfer opens the port, at the address that the client asked.
func newTransfer(ctx context.Context, place *slot, from, to netip.AddrPort) (*transfer, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr(), 0)))
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &transfer{ctx: ctx, place: place, conn: conn, raw: raw, to: to}, nil
}

// file sends a file in lock step and gives how much of it the client has
// acknowledged. accept is sent before it, if there is one.
func (t *transfer) file(data []byte, block int, accept []byte) (sent int, err error) {
	// A wait ends when the server stops. See packet for the order.
	defer context.AfterFunc(t.ctx, func() { _ = t.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if accept != nil {
		if err := t.packet(accept, 0); err != nil {
			return 0, err
		}
	}
	buf := make([]byte, 4+block)
	buf[1] = opData
	for n := uint16(1); ; n++ { // begins anew after 65535, as firmware expects
		binary.BigEndian.PutUint16(buf[2:], n)
		l := copy(buf[4:], data[sent:])
		if err := t.packet(buf[:4+l], n); err != nil {
			return sent, err
		}
		if sent += l; l < block {
			return sent, nil
		}
	}
}

// packet sends a packet until the client acknowledges it as block n.
func (t *transfer) packet(p []byte, n uint16) error {
	err := errNoAnswer
	for range tftpRetries + 1 {
		// Before the look at ctx: whoever ends it sets a deadline of its own.
		if err := t.conn.SetReadDeadline(time.Now().Add(tftpTimeout)); err != nil {
			return err
		}
		if errors.Is(context.Cause(t.ctx), errGaveWay) {
			return errGaveWay
		}
		if t.ctx.Err() != nil {
			return errStopping
		}
		if t.place.overdue() {
			return errTooSlow
		}
		if t.place.maySend() {
			if _, werr := t.conn.WriteToUDPAddrPort(p, t.to); werr != nil {
				err = werr // as if it were lost
			}
		}
		if werr := t.acknowledged(n); !errors.Is(werr, os.ErrDeadlineExceeded) {
			return werr
		}
	}
	return err
}

// acknowledged waits for the acknowledgement of block n. What others send, and
// acknowledgements of other blocks, cost no packet: two that answer each other's
// copies would go on doubling them.
func (t *transfer) acknowledged(n uint16) error {
	t.linger()
	for {
		l, from, err := t.conn.ReadFromUDPAddrPort(t.in[:])
		if err != nil {
			return err
		}
		if from.Port() != t.to.Port() || from.Addr().Unmap() != t.to.Addr() || l < 4 {
			continue
		}
		switch code := binary.BigEndian.Uint16(t.in[2:]); binary.BigEndian.Uint16(t.in[:]) {
		case opAck:
			if code == n {
				t.place.heard()
				return nil
			}
		case opError:
			t.place.heard()
			text, _, _ := strings.Cut(string(t.in[4:l]), "\x00")
			return fmt.Errorf("%w: code %d %s", errClientEnd, code, quoteName(text))
		}
	}
}

// tftpLinger is how long a transfer looks for an answer itself before it has
// the runtime wake it. Most answers come sooner than a thread that sleeps is
// back at work, and in lock step that is what a transfer waits for.
const tftpLinger = 50 * time.Microsecond

// linger waits a moment for the next packet without sleeping, if no other
// transfer could use the processor meanwhile.
func (t *transfer) linger() {
	if !t.place.alone() {
		return
	}
	start := time.Now()
	// Whatever comes of it, the read that follows sees the same.
	_ = t.raw.Read(func(fd uintptr) bool {
		var first [1]byte
		for {
			_, _, err := unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err == nil || time.Since(start) > tftpLinger {
				return true
			}
		}
	})
}

// refuse sends an error packet, once.
func (t *transfer) refuse(code uint16, text string) error {
	p := binary.BigEndian.AppendUint16([]byte{0, opError}, code)
	_, err := t.conn.WriteToUDPAddrPort(append(append(p, text...), 0), t.to)
	return err
}
