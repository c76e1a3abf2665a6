package machine

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/ironring/ironring/agent/filehw"
	"github.com/ironring/ironring/internal/agentproto"
)

// hardware is what one boot of the ramdisk finds: disks that are files, and
// what the configuration says of the rest.
type hardware struct {
	*filehw.Machine
	off atomic.Bool // the agent switched the machine off
}

func (m *Machine) hardware() (*hardware, error) {
	h := new(hardware)
	inv := agentproto.Inventory{
		SystemUUID: m.cfg.UUID, Serial: m.cfg.Serial, Manufacturer: "Ironring", Product: "Simulated machine",
		CPUs: 2, CPUModel: "simulated", Arch: runtime.GOARCH, MemoryBytes: 4 << 30, BMC: m.cfg.BMC,
		Interfaces: []agentproto.Interface{{Name: "eth0", MAC: m.cfg.MAC, Carrier: true}},
	}
	m.mu.Lock()
	disks := slices.Clone(m.cfg.Disks)
	m.mu.Unlock()
	files := map[string]string{}
	for i, d := range disks {
		name := diskName(i)
		files[name] = m.disk[i]
		inv.Disks = append(inv.Disks, agentproto.Disk{
			Name: name, SizeBytes: uint64(d.Bytes), Model: "simulated", Serial: d.Serial, Tran: "sata",
			ByPath: fmt.Sprintf("/dev/disk/by-path/sim-%d", i), LogicalBlk: 512,
		})
	}
	var err error
	h.Machine, err = filehw.New(filehw.Config{Inventory: inv, Files: files, OnPowerOff: func() { h.off.Store(true) }})
	return h, err
}

// ExchangeDisk has the next boot find another disk in the place of one, of the
// same size and with the same bytes.
func (m *Machine) ExchangeDisk(i int, serial string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Disks = slices.Clone(m.cfg.Disks)
	m.cfg.Disks[i].Serial = serial
}

func diskName(i int) string { return fmt.Sprintf("/dev/sd%c", 'a'+i) }

// relayAddr checks that a relay can be simulated from the address.
func relayAddr(a netip.Addr) error {
	if !a.Is4() || a.IsUnspecified() {
		return fmt.Errorf("relay address %s: an IPv4 address of this host is needed", a)
	}
	return nil
}
