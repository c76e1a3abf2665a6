// Package machine simulates a server: what hangs behind a BMC and, when its
// power comes on, does what firmware, first stage and ramdisk do.
//
// It asks for an address as a DHCP relay would (so that it needs no privileges
// and no network of its own), fetches the first stage over TFTP, runs the boot
// script, fetches kernel and initramfs over HTTP and then runs the real agent
// against disks that are sparse files. The code paths of the peers are those
// of real machines; what is simulated is the firmware, the kernel and the
// hardware.
//
// Concurrency: the methods of Machine may be called from anywhere; one
// goroutine is the running machine.
package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/sim/bmc"
)

// Config of a Machine.
type Config struct {
	Name   string
	Dir    string // for its disks and its agent's memory; made if missing
	UUID   string
	Serial string
	MAC    string
	Disks  []Disk
	// BMC is what the machine's in-band interface says of its BMC.
	BMC agentproto.BMC
	// Relay is the address that the machine's relay agent listens on; it must
	// belong to a provisioning network. Servers are the peers' DHCP sockets.
	Relay    netip.Addr
	Servers  []netip.AddrPort
	TFTPPort uint16
	Logger   *slog.Logger
	// POST is how long the firmware takes before it looks at boot devices.
	POST time.Duration
	// Start is called at each power-on, before POST, and may hold the machine
	// up until ctx ends. nil: nothing does.
	Start func(ctx context.Context)
	// ImageNoProgress is that of the agent; 0: the agent's own.
	ImageNoProgress time.Duration
}

// Disk is one disk of a machine.
type Disk struct {
	Serial string
	Bytes  int64
}

// Machine is one simulated server.
type Machine struct {
	cfg  Config
	ctx  context.Context // of the whole simulation
	bmc  *bmc.BMC
	disk []string

	mu   sync.Mutex
	stop context.CancelFunc // of the running machine; guarded by mu
	done chan struct{}      // closed when it has ended; guarded by mu

	stats Stats     // guarded by mu
	hw    *hardware // of the last boot of the ramdisk; guarded by mu
}

// Stats are counters of a machine's life.
type Stats struct {
	PowerOns    int
	RamdiskRuns int    // times that the agent was started
	DiskBoots   int    // times that the machine came up from its own disk
	Marker      string // first bytes of the boot sector at the last disk boot
	Written     uint64 // bytes that agents wrote to the disks, over all boots
	Netboots    int    // times that the firmware tried to boot from the network
	// DHCP is how long each exchange took, from the first DISCOVER to the ACK;
	// DHCPAgain how often a DISCOVER or REQUEST had to be repeated.
	DHCP      []time.Duration
	DHCPAgain int
}

// New makes a machine and its disks. It is off.
func New(ctx context.Context, cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, ctx: ctx}
	if err := relayAddr(cfg.Relay); err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	for i, d := range cfg.Disks {
		path := filepath.Join(cfg.Dir, fmt.Sprintf("disk%d.raw", i))
		if err := sparse(path, d.Bytes); err != nil {
			return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
		}
		m.disk = append(m.disk, path)
	}
	// Every boot finds the hardware anew; a wrong description shows up here.
	if _, err := m.hardware(); err != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.Name, err)
	}
	return m, nil
}

// Attach tells the machine which BMC it hangs on.
func (m *Machine) Attach(b *bmc.BMC) { m.bmc = b }

// DiskPath is the file behind a disk.
func (m *Machine) DiskPath(i int) string { return m.disk[i] }

// Stats is a copy of the machine's counters.
func (m *Machine) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	st.DHCP = slices.Clone(st.DHCP)
	st.Written += m.writtenLocked()
	return st
}

// writtenLocked counts the bytes that the agent of the last boot wrote.
func (m *Machine) writtenLocked() (n uint64) {
	if m.hw != nil {
		for i := range m.disk {
			n += m.hw.BytesWritten(diskName(i))
		}
	}
	return n
}

func (m *Machine) count(f func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.stats)
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// PowerOn implements bmc.Machine.
func (m *Machine) PowerOn(boot api.BootDevice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.stop, m.done = cancel, make(chan struct{})
	m.stats.PowerOns++
	done := m.done
	go func() {
		defer close(done)
		m.run(ctx, boot)
	}()
}

// PowerOff implements bmc.Machine: when it returns the machine has ended.
func (m *Machine) PowerOff() {
	m.mu.Lock()
	stop, done := m.stop, m.done
	m.stop = nil
	m.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

// SoftOff implements bmc.Machine: a machine with an operating system obeys.
func (m *Machine) SoftOff() {
	m.PowerOff()
	m.bmc.PoweredOff()
}

// run is the machine from power-on to power-off. A machine that finds nothing
// to boot stays on and tries again, as firmware does.
func (m *Machine) run(ctx context.Context, boot api.BootDevice) {
	log := m.cfg.Logger.With("machine", m.cfg.Name)
	if m.cfg.Start != nil {
		m.cfg.Start(ctx)
	}
	for ctx.Err() == nil {
		if clock.Pause(ctx, m.cfg.POST) != nil {
			return
		}
		if boot != api.BootDevice_BOOT_DEVICE_DISK {
			var line agent.Line
			var ok bool
			var err error
			if boot == api.BootDevice_BOOT_DEVICE_CDROM {
				line, ok, err = cdrom(ctx, m.bmc.Image())
			} else {
				m.count(func(st *Stats) { st.Netboots++ })
				line, ok, err = m.netboot(ctx)
			}
			if err != nil {
				log.Info("boot failed", "device", boot.String(), "err", err)
			}
			if ok {
				again := m.ramdisk(ctx, line, log)
				if !again {
					return
				}
				boot = m.bmc.NextBoot()
				continue
			}
		}
		if marker, ok := m.bootSector(); ok {
			m.mu.Lock()
			m.stats.DiskBoots++
			m.stats.Marker = marker
			m.mu.Unlock()
			log.Info("booted from disk", "marker", marker)
			<-ctx.Done() // the operating system runs until the power goes
			return
		}
		boot = api.BootDevice_BOOT_DEVICE_NONE
		_ = clock.Pause(ctx, 2*time.Second)
	}
}

// ramdisk runs the agent; again is true when it asked for a reboot.
func (m *Machine) ramdisk(ctx context.Context, line agent.Line, log *slog.Logger) (again bool) {
	m.mu.Lock()
	m.stats.RamdiskRuns++
	m.mu.Unlock()
	// The ramdisk's memory is gone with each boot.
	state, err := os.MkdirTemp(m.cfg.Dir, "ram")
	if err != nil {
		log.Error("no room for the agent's memory", "err", err)
		return false
	}
	defer func() { _ = os.RemoveAll(state) }() // what is left goes with the lab
	hw, err := m.hardware()
	if err != nil {
		log.Error("hardware not found", "err", err)
		return false
	}
	m.mu.Lock()
	m.stats.Written += m.writtenLocked()
	m.hw = hw
	m.mu.Unlock()
	err = agent.Run(ctx, agent.Config{
		Line: line, Hardware: hw, StateDir: state, Version: "simulated", Logger: log, ImageNoProgress: m.cfg.ImageNoProgress,
	})
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		log.Warn("agent ended", "err", err)
		_ = clock.Pause(ctx, 2*time.Second)
		return true
	}
	if hw.off.Load() {
		m.mu.Lock()
		m.stop = nil
		m.mu.Unlock()
		m.bmc.PoweredOff()
		return false
	}
	return true
}

// bootSector gives the text at the start of the first disk that firmware would
// boot.
func (m *Machine) bootSector() (text string, ok bool) {
	for _, path := range m.disk {
		if text, ok := bootText(path); ok {
			return text, true
		}
	}
	return "", false
}

func bootText(path string) (text string, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }() // read only
	sector := make([]byte, 512)
	if _, err := f.ReadAt(sector, 0); err != nil || sector[510] != 0x55 || sector[511] != 0xaa {
		return "", false
	}
	n := 0
	for n < 64 && sector[n] >= ' ' && sector[n] < 0x7f {
		n++
	}
	return string(sector[:n]), true
}
