package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/sim/bmc"
	"github.com/ironring/ironring/sim/machine"
)

// node is one simulated machine and what we know of it.
type node struct {
	name    string
	bmc     *bmc.BMC
	machine *machine.Machine
	port    string // MAC
}

const diskBytes = 8 << 30 // sparse

// startMachines makes the machines and runs their BMCs. stop ends all of them.
func (l *lab) startMachines(ctx context.Context) (err error, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() {
		for _, n := range l.nodes {
			n.machine.PowerOff()
		}
		cancel()
		running.Wait()
	}
	cert, err := bmc.NewCertificate(l.net.bmc().String())
	if err != nil {
		return err, stop
	}
	var servers []netip.AddrPort
	for _, p := range l.peers {
		servers = append(servers, netip.AddrPortFrom(p.addr, dhcpPort))
	}
	for i := range l.opts.Nodes {
		n := &node{name: fmt.Sprintf("n%03d", i+1), port: fmt.Sprintf("52:54:00:1a:%02x:%02x", (i+1)>>8, (i+1)&0xff)}
		bmcMAC := fmt.Sprintf("52:54:00:1b:%02x:%02x", (i+1)>>8, (i+1)&0xff)
		id := uuid.NewString()
		m, err := machine.New(ctx, machine.Config{
			Name: n.name, Dir: filepath.Join(l.dir, "machines", n.name), UUID: id, Serial: "SIM" + n.name, MAC: n.port,
			Disks: []machine.Disk{{Serial: "DISK" + n.name, Bytes: diskBytes}},
			BMC:   agentproto.BMC{Addresses: []string{l.net.bmc().String()}, MACs: []string{bmcMAC}},
			Relay: l.net.relay(), Servers: servers, TFTPPort: tftpPort, Logger: l.opts.Logger, POST: 200 * time.Millisecond,
		})
		if err != nil {
			return err, stop
		}
		b, err := bmc.New(bmc.Config{
			Listen: netip.AddrPortFrom(l.net.bmc(), 0).String(), Certificate: cert, UUID: id, Serial: "SIM" + n.name,
			MAC: bmcMAC, Address: l.net.bmc().String(), Machine: m, PowerDelay: 100 * time.Millisecond,
		})
		if err != nil {
			return err, stop
		}
		m.Attach(b)
		n.bmc, n.machine = b, m
		l.nodes = append(l.nodes, n)
		running.Go(func() {
			if err := b.Run(ctx); err != nil && ctx.Err() == nil {
				l.opts.Logger.Error("simulated BMC ended", "machine", n.name, "err", err)
			}
		})
	}
	return nil, stop
}

// enrol creates the nodes with their ports.
func (l *lab) enrol(ctx context.Context) error {
	for _, n := range l.nodes {
		info, err := json.Marshal(n.bmc.Info())
		if err != nil {
			return err
		}
		if _, err := l.client.CreateNode(ctx, &api.CreateNodeRequest{
			Node:  &api.Node{Name: n.name, Driver: "redfish", DriverInfo: info},
			Ports: []*api.Port{{Address: n.port, PxeEnabled: true}},
		}); err != nil {
			return fmt.Errorf("create node %s: %w", n.name, err)
		}
	}
	l.say("%d machines enrolled", len(l.nodes))
	return nil
}
