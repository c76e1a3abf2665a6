package agent

import (
	"encoding/hex"
	"net"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// Line is what the kernel line says to the agent.
type Line struct {
	Node     string
	Nonce    string
	Peers    []string // host:port of the peers' agent listeners
	CADigest string   // lower-case hex SHA-256 of the CA certificate
	BootMAC  string   // MAC that the firmware booted from, "" when not said
}

// ParseLine reads the agent's keys out of a kernel line and ignores all
// others. The last of a repeated key counts, as it does for the kernel.
func ParseLine(cmdline string) (Line, error) {
	var l Line
	for _, f := range strings.Fields(cmdline) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case agentproto.LineNode:
			l.Node = v
		case agentproto.LineNonce:
			l.Nonce = v
		case agentproto.LineCA:
			l.CADigest = strings.ToLower(v)
		case agentproto.LinePeers:
			l.Peers = nil
			for _, p := range strings.Split(v, ",") {
				if p != "" {
					l.Peers = append(l.Peers, p)
				}
			}
		case agentproto.LineBootIF:
			l.BootMAC = bootMAC(v)
		}
	}
	return l, l.Validate()
}

// Validate names the first key that is missing or wrong.
func (l Line) Validate() error {
	if l.Node == "" {
		return errs.New(errs.Invalid, "kernel line has no %s", agentproto.LineNode)
	}
	if l.Nonce == "" {
		return errs.New(errs.Invalid, "kernel line has no %s", agentproto.LineNonce)
	}
	if len(l.Peers) == 0 {
		return errs.New(errs.Invalid, "kernel line has no %s", agentproto.LinePeers)
	}
	for _, p := range l.Peers {
		if _, _, err := net.SplitHostPort(p); err != nil {
			return errs.New(errs.Invalid, "%s: %q is not host:port", agentproto.LinePeers, p)
		}
	}
	if b, err := hex.DecodeString(l.CADigest); err != nil || len(b) != 32 {
		return errs.New(errs.Invalid, "%s is not a SHA-256 in hex", agentproto.LineCA)
	}
	return nil
}

// bootMAC turns BOOTIF (hardware type and MAC with dashes, or a bare MAC)
// into a MAC with colons; "" when it is neither.
func bootMAC(v string) string {
	v = strings.ReplaceAll(strings.ToLower(v), "-", ":")
	if len(v) == 20 {
		v = v[3:]
	}
	if mac, err := net.ParseMAC(v); err != nil || len(mac) != 6 {
		return ""
	}
	return v
}
