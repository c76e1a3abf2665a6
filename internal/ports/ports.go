// Package ports is the one table of the network ports that a peer listens on
// by default. The configuration takes its defaults from it and docs/ports.md
// is written from it (go test ./internal/ports -update).
//
// It is plain data: no state, nothing to synchronise. Start with Table.
package ports

import (
	"fmt"
	"strings"
)

// Default port numbers. Those of ours are next to each other; TFTP and DHCP
// are where firmware looks for them.
const (
	Cluster = 7480
	Gossip  = 7481
	API     = 7482
	Agent   = 7483
	Boot    = 7484
	TFTP    = 69
	DHCP    = 67
	PXE     = 4011
	Metrics = 7485
)

// Port is one listener of a peer.
type Port struct {
	Key       string // in the section `listen` of the configuration
	Number    int
	Transport string // "tcp", "udp", "tcp+udp"
	Callers   string // who connects
	Purpose   string
	Security  string
}

// Table lists every listener of a peer, in the order of the document.
func Table() []Port {
	return []Port{
		{"cluster", Cluster, "tcp", "peers", "Raft and calls between peers, forming (told apart by ALPN)", "TLS 1.3, both sides, certificates of the cluster; forming: the shared key"},
		{"gossip", Gossip, "tcp+udp", "peers", "membership and failure hints", "AES-GCM with the cluster's gossip key"},
		{"api", API, "tcp", "CLI, programs, joining peers", "gRPC API", "TLS 1.3; a client certificate for everything but joining"},
		{"agent", Agent, "tcp", "agents in ramdisks", "enrolment and the agent's stream", "TLS 1.3; the agent knows the CA by its digest"},
		{"boot", Boot, "tcp", "firmware, iPXE, ramdisks", "HTTP: boot scripts, kernel, initramfs", "none: the provisioning network is trusted"},
		{"tftp", TFTP, "udp", "firmware", "TFTP: the first boot stage only", "none: the provisioning network is trusted"},
		{"dhcp", DHCP, "udp", "firmware, DHCP relays", "addresses and boot options for known ports", "none: answers known MAC addresses only"},
		{"pxe", PXE, "udp", "firmware, iPXE", "boot options beside a foreign DHCP server (proxy mode)", "none: answers known MAC addresses only, each at its own address"},
		{"metrics", Metrics, "tcp", "Prometheus", "GET /metrics; off unless the configuration names an address", "none: counts and times only"},
	}
}

// Markdown is the body of docs/ports.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Ports of a peer\n\n")
	b.WriteString("Written by `go test ./internal/ports -update` from the table in `internal/ports`; do not edit.\n")
	b.WriteString("Each can be changed in the section `listen` of the configuration file.\n\n")
	b.WriteString("| key | port | transport | who connects | for | protection |\n|---|---|---|---|---|---|\n")
	for _, p := range Table() {
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s | %s | %s |\n", p.Key, p.Number, p.Transport, p.Callers, p.Purpose, p.Security)
	}
	b.WriteString("\nThe CLI on the peer's own host uses the unix socket `<data_dir>/ironring.sock` (mode 0600) and no port.\n")
	return b.String()
}
