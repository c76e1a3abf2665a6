package ipmi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/ironring/ironring/internal/errs"
)

// relay carries the datagrams between one ipmitool and one BMC.
//
//	ipmitool -> front (loopback) -> allowed? -> back -> BMC
//
// What it counts tells whether anything that could change the machine has left
// this host, which ipmitool does not say.
type relay struct {
	front   *net.UDPConn
	back    *net.UDPConn
	allowed func() error // asked before each datagram to the BMC
	dead    func()       // called when the BMC's host says that nobody listens
	wg      sync.WaitGroup

	mu     sync.Mutex
	client netip.AddrPort // guarded by mu; the first one that sent
	seen   traffic        // guarded by mu
}

// traffic is what a relay has seen.
type traffic struct {
	sent     int  // datagrams to the BMC
	session  int  // of them, inside a session: commands
	answered int  // datagrams from the BMC
	strange  int  // of them, not RMCP
	refused  bool // the host says that nobody listens
	stopped  bool // the grant or the context has ended
}

// newRelay opens a relay from front to address, which is host:port, and starts
// it. It owns front, also on an error. The caller must close it.
func newRelay(ctx context.Context, front *net.UDPConn, address string, allowed func() error, dead func()) (*relay, error) {
	var d net.Dialer
	back, err := d.DialContext(ctx, "udp", address)
	if err != nil {
		front.Close()
		return nil, errs.New(errs.Unreachable, "the BMC cannot be reached: %w", err)
	}
	r := &relay{front: front, back: back.(*net.UDPConn), allowed: allowed, dead: dead}
	r.wg.Go(r.toBMC)
	r.wg.Go(r.fromBMC)
	return r, nil
}

// anyFront is a front on any port.
func anyFront() (*net.UDPConn, error) {
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, errs.New(errs.Internal, "relay to the BMC: %w", err)
	}
	return front, nil
}

// sameFront is a front on the port of the BMC, at any loopback address: a BMC
// says on which port its console is, and ipmitool refuses another than the one
// that it talks to.
func sameFront(address string) (*net.UDPConn, error) {
	_, text, _ := net.SplitHostPort(address) // joined by parse
	port, _ := strconv.Atoi(text)
	var last error
	for range 10 {
		ip := net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(256)), byte(1+rand.N(254)))
		front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: port})
		switch {
		case err == nil:
			return front, nil
		case errors.Is(err, syscall.EACCES):
			return nil, errs.New(errs.Unsupported, "reading the console needs the right to open UDP port %d on a loopback address (CAP_NET_BIND_SERVICE): %w", port, err)
		}
		last = err // somebody has the port on all addresses, or on this one
	}
	return nil, errs.New(errs.Busy, "reading the console needs UDP port %d on a loopback address: %w", port, last)
}

// at is where ipmitool finds the relay.
func (r *relay) at() *net.UDPAddr { return r.front.LocalAddr().(*net.UDPAddr) }

// close ends the relay and tells what it has seen.
func (r *relay) close() traffic {
	r.front.Close()
	r.back.Close()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

func (r *relay) toBMC() {
	buf := make([]byte, 4096)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed: reading from an unconnected socket has no other error
		}
		if !r.admit(from, buf[:n]) {
			continue
		}
		if _, err := r.back.Write(buf[:n]); err != nil && !r.goOn(err) {
			return
		}
	}
}

// admit counts a datagram that may go to the BMC. What has not come from our
// ipmitool may not: it has the port of who sent first.
func (r *relay) admit(from netip.AddrPort, p []byte) bool {
	stopped := r.allowed() != nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.client.IsValid() {
		r.client = from
	}
	if from != r.client {
		return false
	}
	if stopped {
		r.seen.stopped = true
		return false
	}
	r.seen.sent++
	if inSession(p) {
		r.seen.session++
	}
	return true
}

func (r *relay) fromBMC() {
	buf := make([]byte, 4096)
	for {
		n, err := r.back.Read(buf)
		if err != nil {
			if r.goOn(err) {
				continue
			}
			return
		}
		r.mu.Lock()
		client := r.client
		r.seen.answered++
		if !rmcp(buf[:n]) {
			r.seen.strange++
		}
		r.mu.Unlock()
		if client.IsValid() {
			// A full socket buffer loses the datagram, as a network may.
			_, _ = r.front.WriteToUDPAddrPort(buf[:n], client)
		}
	}
}

// goOn is false when the socket is closed. Other errors are what the network
// says about an earlier datagram.
func (r *relay) goOn(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		r.mu.Lock()
		first := !r.seen.refused
		r.seen.refused = true
		r.mu.Unlock()
		if first {
			r.dead()
		}
	}
	return true
}

// rmcp reports whether a datagram has the header of RMCP.
func rmcp(p []byte) bool {
	return len(p) >= 4 && p[0] == 0x06 && p[3]&0x1f == 0x07
}

// inSession reports whether a datagram is an IPMI message of an established
// RMCP+ session: authentication type RMCP+, payload type IPMI, authenticated
// or encrypted. Only such ones can change the machine.
func inSession(p []byte) bool {
	return len(p) > 16 && rmcp(p) && p[4] == 0x06 && p[5]&0x3f == 0 && p[5]&0xc0 != 0
}
