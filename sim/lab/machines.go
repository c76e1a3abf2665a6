package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
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
	ipmi    *bmc.RMCP // the BMC's IPMI face; nil: the peers speak Redfish to it
	machine *machine.Machine
	port    string // MAC
	disks   int
	written uint64 // bytes on its disks, as Stats counts them, when it was last available
}

// machineDisk is the disk of a machine that needs nothing special.
var machineDisk = machine.Disk{Bytes: 8 << 30} // sparse

// imagePatience is how long an agent waits for an image server that gives
// nothing. It is short because all that is asked here is on this host.
const imagePatience = 10 * time.Second

// machines is what the machines of a lab share.
type machines struct {
	ctx     context.Context // ends the BMCs, and the machines with their power
	cancel  context.CancelFunc
	running sync.WaitGroup // BMCs
	cert    *bmc.Certificate
	start   func(ctx context.Context) // machine.Config.Start; nil: nothing
}

// prepare must come before the first machine.
func (m *machines) prepare(ctx context.Context, bmcAt netip.Addr) (err error) {
	if m.cert, err = bmc.NewCertificate(bmcAt.String()); err != nil {
		return err
	}
	m.ctx, m.cancel = context.WithCancel(ctx)
	return nil
}

func (l *lab) stopMachines() error {
	for _, n := range l.nodes {
		n.machine.PowerOff()
	}
	l.machines.cancel()
	l.machines.running.Wait()
	return nil
}

// addMachine makes one more machine, which is off, and runs its BMC, which
// speaks Redfish. Disks without a serial get one.
func (l *lab) addMachine(disks ...machine.Disk) (*node, error) {
	return l.addMachineOf(bmc.Mixed(len(l.nodes)+1), disks...) // no two makers' BMCs are the same
}

// addIPMI makes a machine whose BMC is asked by IPMI, over RMCP+.
func (l *lab) addIPMI(disks ...machine.Disk) (*node, error) {
	n, err := l.addMachineOf("", disks...)
	if err != nil {
		return nil, err
	}
	if n.ipmi, err = n.bmc.NewRMCP(bmc.RMCPConfig{}); err != nil {
		return nil, err
	}
	l.machines.running.Go(func() {
		if err := n.ipmi.Run(l.machines.ctx); err != nil {
			l.opts.Logger.Error("simulated BMC's IPMI ended", "machine", n.name, "err", err)
		}
	})
	return n, nil
}

// ipmitool says whether this host has what the ipmi driver needs.
func ipmitool() bool {
	_, err := exec.LookPath("ipmitool")
	return err == nil
}

// addMachineOf is addMachine with a choice of BMC.
func (l *lab) addMachineOf(personality string, disks ...machine.Disk) (*node, error) {
	i := len(l.nodes) + 1
	n := &node{name: fmt.Sprintf("n%03d", i), port: fmt.Sprintf("52:54:00:1a:%02x:%02x", i>>8, i&0xff), disks: len(disks)}
	disks = slices.Clone(disks)
	for d := range disks {
		if disks[d].Serial == "" {
			disks[d].Serial = fmt.Sprintf("DISK%s%c", n.name, 'A'+d)
		}
	}
	var servers []netip.AddrPort
	for _, p := range l.peers {
		servers = append(servers, netip.AddrPortFrom(p.addr, dhcpPort))
	}
	address, mac, id := l.net.bmc().String(), fmt.Sprintf("52:54:00:1b:%02x:%02x", i>>8, i&0xff), uuid.NewString()
	var err error
	if n.machine, err = machine.New(l.machines.ctx, machine.Config{
		Name: n.name, Dir: filepath.Join(l.dir, "machines", n.name), UUID: id, Serial: "SIM" + n.name, MAC: n.port, Disks: disks,
		BMC:   agentproto.BMC{Addresses: []string{address}, MACs: []string{mac}},
		Relay: l.net.relay(), Servers: servers, TFTPPort: tftpPort, Logger: l.opts.Logger, POST: 200 * time.Millisecond,
		ImageNoProgress: imagePatience, Start: l.machines.start,
	}); err != nil {
		return nil, err
	}
	if n.bmc, err = bmc.New(bmc.Config{
		Personality: personality,
		Listen:      netip.AddrPortFrom(l.net.bmc(), 0).String(), Certificate: l.machines.cert, UUID: id, Serial: "SIM" + n.name,
		MAC: mac, Address: address, Machine: n.machine, PowerDelay: 100 * time.Millisecond,
	}); err != nil {
		return nil, err
	}
	n.machine.Attach(n.bmc)
	l.nodes = append(l.nodes, n)
	l.machines.running.Go(func() {
		if err := n.bmc.Run(l.machines.ctx); err != nil && l.machines.ctx.Err() == nil {
			l.opts.Logger.Error("simulated BMC ended", "machine", n.name, "err", err)
		}
	})
	return n, nil
}

// enrol creates the node of a machine, with its port.
func (l *lab) enrol(ctx context.Context, n *node) error {
	driver, settings := "redfish", n.bmc.Info()
	if n.ipmi != nil {
		driver, settings = "ipmi", n.ipmi.Info()
	}
	info, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	if _, err := l.client.CreateNode(ctx, &api.CreateNodeRequest{
		Node:  &api.Node{Name: n.name, Driver: driver, DriverInfo: info},
		Ports: []*api.Port{{Address: n.port, PxeEnabled: true}},
	}); err != nil {
		return fmt.Errorf("create node %s: %w", n.name, err)
	}
	return nil
}
