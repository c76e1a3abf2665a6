//go:build linux

// Package linuxhw is the real machine under a Linux kernel: what sysfs, procfs,
// ioctls and the BMC's in-band interface tell.
//
// Invariants: looking never writes, neither to a disk nor to the BMC; a fact
// that cannot be found is left empty, never guessed; a disk is opened
// exclusively, so that a mounted or assembled one cannot be written.
//
// Safe for concurrent use; nothing is cached. Start reading at Machine.
package linuxhw

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/internal/errs"
)

// Config of a Machine. The zero value is the machine that we run on.
type Config struct {
	// Root is put before /sys, /proc and /dev; "" in a real machine.
	Root   string
	Logger *slog.Logger
	// Settle returns when the devices that the kernel is finding now have been
	// found. It is called before disks and NICs are listed. nil does nothing.
	Settle func(context.Context) error
}

// Machine implements agent.Hardware.
type Machine struct {
	cfg Config
}

var _ agent.Hardware = (*Machine)(nil)

// New makes a Machine.
func New(cfg Config) *Machine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Machine{cfg: cfg}
}

func (m *Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.cfg.Root, "/"}, elem...)...)
}

// read is the text of a file, without the white space around it; "" when it
// cannot be read: sysfs shows only what the device has.
func (m *Machine) read(elem ...string) string {
	b, err := os.ReadFile(m.path(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(b), "\x00"))
}

func (m *Machine) settle(ctx context.Context) error {
	if m.cfg.Settle == nil {
		return nil
	}
	return m.cfg.Settle(ctx)
}

// Identity implements agent.Hardware. It does not wait for devices: the NIC
// that we boot from is there already, and one MAC of the node's is enough.
func (m *Machine) Identity(context.Context) (agent.Identity, error) {
	id := agent.Identity{
		SystemUUID: strings.ToLower(m.read("sys/class/dmi/id/product_uuid")),
		Serial:     dmi(m.read("sys/class/dmi/id/product_serial")),
	}
	for _, n := range m.interfaces() {
		id.MACs = append(id.MACs, n.MAC)
	}
	return id, nil
}

// dmi drops the texts that board makers leave where nothing was filled in.
func dmi(s string) string {
	switch strings.ToLower(s) {
	case "to be filled by o.e.m.", "default string", "not specified", "none", "n/a", "system serial number", "0123456789", "not applicable", "unknown":
		return ""
	}
	return s
}

// EFI implements agent.Hardware.
func (m *Machine) EFI() efi.Vars {
	if _, err := os.Stat(m.path("sys/firmware/efi")); err != nil {
		return nil
	}
	return efi.FS{Dir: m.path("sys/firmware/efi/efivars")}
}

// SetClock implements agent.Hardware. The machine's battery-backed clock is
// left alone.
func (m *Machine) SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return errs.New(errs.Internal, "set the clock: %w", err)
	}
	return nil
}

// Reboot implements agent.Hardware.
func (m *Machine) Reboot() error { return restart(unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff implements agent.Hardware.
func (m *Machine) PowerOff() error { return restart(unix.LINUX_REBOOT_CMD_POWER_OFF) }

func restart(cmd int) error {
	unix.Sync()
	if err := unix.Reboot(cmd); err != nil {
		return errs.New(errs.Internal, "reboot(%#x): %w", cmd, err)
	}
	return nil
}

// names are the entries of a directory, none when it is not there.
func (m *Machine) names(elem ...string) []string {
	ents, err := os.ReadDir(m.path(elem...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.cfg.Logger.Debug("cannot list", "dir", m.path(elem...), "err", err)
	}
	out := make([]string, 0, len(ents))
	for _, e := range ents {
		out = append(out, e.Name())
	}
	return out
}
