// Package filehw is a machine made of files: its disks are sparse files, its
// firmware variables live in memory, and the rest is what the caller says. The
// simulator and the tests run the real agent on it.
//
// Invariants: a disk is open at most once at a time, as on a real machine; the
// bytes written to each disk are counted; nothing outside the given files is
// touched. Safe for concurrent use.
package filehw

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/agent/signature"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// Config is the machine.
type Config struct {
	// Inventory is what the machine says of itself. Excluded of its disks is
	// filled here, by the rule for real ones.
	Inventory agentproto.Inventory
	// Files are the disks' contents, by Disk.Name. A file that is missing is
	// made, sparse and of the disk's size; one of another size is refused.
	Files map[string]string
	// EFI are the firmware's variables; nil means BIOS.
	EFI efi.Vars
	// OnReboot and OnPowerOff are called when the agent has ended for that
	// reason; they must return at once. nil does nothing.
	OnReboot, OnPowerOff func()
	// OnSetClock hears of the cluster's time. nil does nothing.
	OnSetClock func(time.Time)
}

// Machine implements agent.Hardware.
type Machine struct {
	cfg     Config
	written map[string]*atomic.Uint64

	mu       sync.Mutex
	open     map[string]bool // guarded by mu
	released bool            // guarded by mu; ReleaseDisks was called
}

var _ agent.Hardware = (*Machine)(nil)

// New checks that every disk has its file and makes those that are missing.
func New(cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, written: map[string]*atomic.Uint64{}, open: map[string]bool{}}
	for _, d := range cfg.Inventory.Disks {
		path := cfg.Files[d.Name]
		if path == "" {
			return nil, errs.New(errs.Invalid, "disk %s has no file", d.Name)
		}
		m.written[d.Name] = new(atomic.Uint64)
		if err := ensure(path, int64(d.SizeBytes)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func ensure(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return errs.New(errs.Internal, "disk file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return errs.New(errs.Internal, "disk file: %w", err)
	}
	if st.Size() == 0 {
		err = f.Truncate(size)
	} else if st.Size() != size {
		return errs.New(errs.Invalid, "disk file %s has %d bytes, not %d", filepath.Base(path), st.Size(), size)
	}
	if err != nil {
		return errs.New(errs.Internal, "disk file: %w", err)
	}
	return nil
}

// BytesWritten counts what the agent has written to a disk so far.
func (m *Machine) BytesWritten(name string) uint64 {
	if c := m.written[name]; c != nil {
		return c.Load()
	}
	return 0
}

// Identity implements agent.Hardware.
func (m *Machine) Identity(context.Context) (agent.Identity, error) {
	id := agent.Identity{SystemUUID: strings.ToLower(m.cfg.Inventory.SystemUUID), Serial: m.cfg.Inventory.Serial}
	for _, i := range m.cfg.Inventory.Interfaces {
		id.MACs = append(id.MACs, strings.ToLower(i.MAC))
	}
	return id, nil
}

// Inventory implements agent.Hardware.
func (m *Machine) Inventory(ctx context.Context) (*agentproto.Inventory, error) {
	inv := m.cfg.Inventory
	inv.BootMode = "bios"
	if m.cfg.EFI != nil {
		inv.BootMode = "uefi"
	}
	var err error
	inv.Disks, err = m.Disks(ctx)
	return &inv, err
}

// Disks implements agent.Hardware.
func (m *Machine) Disks(context.Context) ([]agentproto.Disk, error) {
	m.mu.Lock()
	released := m.released
	m.mu.Unlock()
	disks := append([]agentproto.Disk(nil), m.cfg.Inventory.Disks...)
	for i := range disks {
		d := &disks[i]
		d.Contents = m.contents(d.Name, int64(d.SizeBytes))
		if released {
			d.Holders = slices.DeleteFunc(slices.Clone(d.Holders), func(h string) bool { return strings.HasPrefix(h, "md") })
		}
		if d.Excluded = rootdisk.Ineligible(*d); d.Excluded == "" {
			if of := m.members(d.Name); len(of) > 0 {
				d.Excluded = rootdisk.Member(of)
			}
		}
	}
	return disks, nil
}

// members names what a disk is a member of by its own bytes.
func (m *Machine) members(name string) []string {
	f, err := os.Open(m.cfg.Files[name])
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	return signature.Members(f, st.Size())
}

// contents names what lies on a disk; nil where it cannot be read.
func (m *Machine) contents(name string, size int64) []string {
	f, err := os.Open(m.cfg.Files[name])
	if err != nil {
		return nil
	}
	defer f.Close()
	found, err := signature.Contents(f, size)
	if err != nil {
		return nil
	}
	return found
}

// ReleaseDisks implements agent.Hardware: holders that are md arrays are gone
// from then on.
func (m *Machine) ReleaseDisks(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released = true
	return nil
}

// OpenDisk implements agent.Hardware.
func (m *Machine) OpenDisk(_ context.Context, name string) (agent.BlockDevice, error) {
	path := m.cfg.Files[name]
	if path == "" {
		return nil, errs.New(errs.NotFound, "no disk %s", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open[name] {
		return nil, errs.New(errs.Busy, "disk %s is in use", name)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, errs.New(errs.Internal, "disk file: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, errs.New(errs.Internal, "disk file: %w", err)
	}
	m.open[name] = true
	return &disk{File: f, m: m, name: name, size: st.Size(), written: m.written[name]}, nil
}

// EFI implements agent.Hardware.
func (m *Machine) EFI() efi.Vars { return m.cfg.EFI }

// SetClock implements agent.Hardware.
func (m *Machine) SetClock(t time.Time) error {
	if m.cfg.OnSetClock != nil {
		m.cfg.OnSetClock(t)
	}
	return nil
}

// Reboot implements agent.Hardware.
func (m *Machine) Reboot() error {
	if m.cfg.OnReboot != nil {
		m.cfg.OnReboot()
	}
	return nil
}

// PowerOff implements agent.Hardware.
func (m *Machine) PowerOff() error {
	if m.cfg.OnPowerOff != nil {
		m.cfg.OnPowerOff()
	}
	return nil
}

// disk is an open disk file that keeps its size.
type disk struct {
	*os.File
	m       *Machine
	name    string
	size    int64
	written *atomic.Uint64
	closed  atomic.Bool
}

func (d *disk) Size() int64 { return d.size }

// WriteAt refuses to make the disk larger, as a disk does.
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, unix.ENOSPC
	}
	n, err := d.File.WriteAt(p, off)
	d.written.Add(uint64(n))
	return n, err
}

// Sync implements agent.BlockDevice. What the host's kernel has outlives the
// simulated machine, which never loses its host's power.
func (d *disk) Sync() error { return nil }

// ZeroAt makes n bytes at off read as zero, and gives their place back.
func (d *disk) ZeroAt(off, n int64) error {
	if off < 0 || off+n > d.size {
		return unix.ENOSPC
	}
	return unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *disk) DropCaches() error {
	return unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func (d *disk) RereadPartitions() error { return nil }

func (d *disk) Close() error {
	if d.closed.Swap(true) {
		return os.ErrClosed
	}
	d.m.mu.Lock()
	delete(d.m.open, d.name)
	d.m.mu.Unlock()
	return d.File.Close()
}
