package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// loopback is a part of 127.0.0.0/8 that one lab has for itself:
//
//	127.A.0.N    peer N
//	127.A.1.1    image server
//	127.A.1.2    BMCs, a port each
//	127.A.1.3    the machines' relay agents
//	127.A.128/17 the provisioning network, addresses that machines get
//
// Linux takes every address of the loopback network for its own, so nothing
// has to be set up. A socket on 127.A.255.254 marks A as taken.
type loopback struct {
	a    byte
	mark net.Listener
}

const markPort = 7479

func claimLoopback() (*loopback, error) {
	first := rand.N(100)
	for i := range 100 {
		a := byte(100 + (first+i)%100)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.%d.255.254:%d", a, markPort))
		if err == nil {
			return &loopback{a: a, mark: ln}, nil
		}
	}
	return nil, fmt.Errorf("no free part of the loopback network: this host may not allow addresses other than 127.0.0.1")
}

func (l *loopback) release() error { return l.mark.Close() }

func (l *loopback) at(b, c byte) netip.Addr { return netip.AddrFrom4([4]byte{127, l.a, b, c}) }

func (l *loopback) peer(n int) netip.Addr { return l.at(0, byte(n)) }
func (l *loopback) image() netip.Addr     { return l.at(1, 1) }
func (l *loopback) bmc() netip.Addr       { return l.at(1, 2) }
func (l *loopback) relay() netip.Addr     { return l.at(1, 3) }

func (l *loopback) cidr() string  { return fmt.Sprintf("127.%d.128.0/17", l.a) }
func (l *loopback) first() string { return fmt.Sprintf("127.%d.129.1", l.a) }
func (l *loopback) last() string  { return fmt.Sprintf("127.%d.254.254", l.a) }
