package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// BootDev is what the firmware tries first at its next start.
type BootDev string

// The boot devices. BootNone is the machine's own order: disk, then network.
const (
	BootNone BootDev = "none"
	BootPXE  BootDev = "pxe"
	BootDisk BootDev = "default" // ipmi_sim's word for the disk
	BootCD   BootDev = "cdrom"   // only machines with Media have one
)

// Firmware is what a machine starts with.
type Firmware string

// The firmwares. SeaBIOS boots from the network by its NIC's ROM, which is
// iPXE already.
const (
	UEFI     Firmware = ""     // PXE by the firmware's own client
	UEFIHTTP Firmware = "http" // HTTP boot, PXE is switched off
	BIOS     Firmware = "bios"
)

// VMSpec is a machine to make.
type VMSpec struct {
	Index    int // 1 to MaxVMs: its tap and its BMC
	UUID     string
	Serial   string
	DiskMB   int64
	Firmware Firmware
	Bridge   string // that its NIC is plugged into, "": BridgeProv
	Media    bool   // it has a CD drive, and no wire to a BMC: see NewRedfish
	TwoNICs  bool   // it has a second NIC, by the tap of machine MaxVMs, which must not run
	RTC      string // what its clock says at the first power-on, as QEMU takes it; "": the time
	// Turn, if set, is shared by machines of which only one may run at a time.
	// A machine that is switched on out of turn is on, as seen by its BMC, and
	// does nothing yet: to everybody else it is a machine with a long self-test.
	Turn *Turn
}

// VM is a server with a power button: it is on while its QEMU runs.
type VM struct {
	Name    string
	Index   int
	UUID    string // SMBIOS system UUID
	Serial  string // SMBIOS system serial number
	MAC     string // of its NIC
	MAC2    string // of its second NIC, "" without one
	Disk    string // the raw file behind its disk, sparse
	DiskID  string // the serial number that the guest sees
	Console *Console

	lab  *Lab
	turn *Turn
	fw   Firmware
	dir  string
	sock string
	vars string
	rtc  string
	cd   bool

	mu      sync.Mutex
	proc    *Proc     // guarded by mu; nil when off
	qmp     *qmp      // guarded by mu; nil when off
	waiting bool      // guarded by mu; on, but not its turn to run
	boot    BootDev   // guarded by mu; used up by the next start of the firmware
	written uint64    // guarded by mu; bytes that earlier runs of QEMU wrote to the disk
	silent  bool      // guarded by mu; a start showed no firmware output in its limit
	started time.Time // guarded by mu; when the firmware last started after power on
	changes []string  // guarded by mu; power and boot device, in order
	medium  string    // guarded by mu; the file that is in the CD drive
	onOff   func()    // guarded by mu; called with mu held when the power has gone
	watch   sync.WaitGroup
}

const ovmf = "/usr/share/OVMF/"

// NewVM makes a machine that is off, with an empty disk and fresh firmware
// settings.
func (l *Lab) NewVM(s VMSpec) (*VM, error) {
	name := "vm" + strconv.Itoa(s.Index)
	dir, err := os.MkdirTemp(l.Dir, name+"-")
	if err != nil {
		return nil, err
	}
	sock, err := l.socketDir()
	if err != nil {
		return nil, err
	}
	vm := &VM{
		Name: name, Index: s.Index, UUID: s.UUID, Serial: s.Serial,
		MAC:     fmt.Sprintf("52:54:00:77:00:%02x", s.Index),
		Disk:    filepath.Join(dir, "disk.raw"),
		DiskID:  "E2EDISK" + strconv.Itoa(s.Index),
		Console: &Console{File: filepath.Join(dir, "console.log")},
		lab:     l, dir: dir, boot: BootNone, turn: s.Turn, fw: s.Firmware, rtc: s.RTC, cd: s.Media,
		sock: filepath.Join(sock, filepath.Base(dir)+".qmp"),
		vars: filepath.Join(dir, "vars.fd"),
	}
	bridge := s.Bridge
	if bridge == "" {
		bridge = BridgeProv
	}
	taps := []string{vm.tap()}
	if s.TwoNICs {
		vm.MAC2 = fmt.Sprintf("52:54:00:77:01:%02x", s.Index)
		taps = append(taps, tapOf(MaxVMs))
	}
	for _, tap := range taps {
		if err := l.ip(context.Background(), "net", "link set "+tap+" master "+bridge); err != nil {
			return nil, err
		}
	}
	if err := copyFile(vm.vars, ovmf+"OVMF_VARS_4M.fd"); err != nil {
		return nil, err
	}
	f, err := os.Create(vm.Disk)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(s.DiskMB * mib); err != nil {
		return nil, err
	}
	l.Defer(func() error {
		vm.PowerOff("the lab closes")
		vm.watch.Wait()
		return errors.Join(os.Remove(vm.Disk), os.Remove(vm.vars))
	})
	return vm, nil
}

// socketDir is the directory for the sockets of a run. Its name is short: a
// unix socket's path is at most 107 bytes long, and a clone may lie anywhere.
func socketDir(prefix string) string { return filepath.Join(os.TempDir(), prefix) }

func (l *Lab) socketDir() (string, error) {
	dir := socketDir(l.Prefix)
	if err := os.Mkdir(dir, 0o700); err == nil {
		l.Defer(func() error { return os.RemoveAll(dir) })
	} else if !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// tap is the network interface behind the machine's NIC.
func (vm *VM) tap() string { return tapOf(vm.Index) }

func tapOf(index int) string { return "vm" + strconv.Itoa(index) }

// PowerOn presses the button of a machine that is off.
func (vm *VM) PowerOn(why string) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.onLocked() {
		return nil
	}
	if vm.turn != nil && !vm.turn.take(vm) {
		vm.waiting = true
		vm.changedLocked("power on (" + why + "), waits for its turn")
		return nil
	}
	return vm.startLocked(why)
}

// yourTurn starts a machine that was switched on and had to wait.
func (vm *VM) yourTurn() {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.waiting {
		return
	}
	vm.waiting = false
	if err := vm.startLocked("its turn"); err != nil {
		vm.lab.Logf("%s: %v", vm.Name, err)
	}
}

func (vm *VM) startLocked(why string) error {
	first := vm.boot
	vm.boot = BootNone
	mark := vm.Console.Mark()
	_ = os.Remove(vm.sock)
	proc, err := vm.lab.Start(Cmd{
		Name: vm.Name, NS: vm.lab.NS("net"), Nice: 10, Args: vm.argsLocked(first), Log: filepath.Join(vm.dir, "qemu.log"),
	})
	if err != nil {
		return err
	}
	var q *qmp
	err = Poll(context.Background(), "answer from QEMU", vm.lab.Limit(20*time.Second), func() (bool, error) {
		if !proc.Running() {
			return false, fmt.Errorf("%s ended: %w, see qemu.log", vm.Name, proc.Err())
		}
		var err error
		q, err = dialQMP(vm.sock, vm.event(proc))
		return err == nil, err
	})
	if err != nil {
		proc.Kill()
		return err
	}
	vm.proc, vm.qmp = proc, q
	vm.started = time.Now()
	vm.changedLocked(fmt.Sprintf("power on (%s), boot %s, pid %d", why, first, proc.Pid))
	// The choice of boot device is for this start only; what the guest starts
	// by itself later uses the machine's own order.
	if first == BootPXE || first == BootCD {
		err = vm.orderLocked(BootNone)
	}
	vm.watch.Go(func() { vm.watchFirmware(proc, mark) })
	return err
}

// watchFirmware notes when a start shows nothing on the console.
func (vm *VM) watchFirmware(proc *Proc, mark int64) {
	limit := vm.lab.Limit(30 * time.Second)
	err := Poll(context.Background(), "firmware output of "+vm.Name, limit, func() (bool, error) {
		return vm.Console.Mark() > mark || !proc.Running(), nil
	})
	if err != nil {
		vm.mu.Lock()
		vm.silent = true
		vm.mu.Unlock()
		vm.lab.Logf("%s: %v", vm.Name, err)
	}
}

// Silent tells whether a start of the machine showed no firmware output.
func (vm *VM) Silent() bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.silent
}

// Started is when the machine last began to run after power on.
func (vm *VM) Started() time.Time {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.started
}

// event is called by the QMP reader of one QEMU.
func (vm *VM) event(proc *Proc) func(string, json.RawMessage) {
	return func(name string, data json.RawMessage) {
		switch name {
		case "RESET":
			vm.lab.Logf("%s: reset %s", vm.Name, data)
		case "SHUTDOWN":
			// The guest or its BMC ended it: what is left is to cut the power. Not
			// here, because the reader must go on to answer what that asks.
			vm.watch.Go(func() { vm.powerOff("shutdown "+string(data), proc) })
		}
	}
}

// PowerOff cuts the power: at once, nothing in the guest is flushed.
func (vm *VM) PowerOff(why string) { vm.powerOff(why, nil) }

// powerOff ends QEMU; with only set, it does so only if that is still it.
func (vm *VM) powerOff(why string, only *Proc) {
	if vm.cut(why, only) && vm.turn != nil {
		if next := vm.turn.leave(vm); next != nil {
			next.yourTurn()
		}
	}
}

// cut reports whether the machine was on and is off now.
func (vm *VM) cut(why string, only *Proc) bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.waiting && only == nil {
		vm.waiting = false
		vm.changedLocked("power off (" + why + ") before its turn")
		return true
	}
	if vm.proc == nil || (only != nil && vm.proc != only) {
		return false
	}
	if n, err := vm.blockWritesLocked(); err == nil {
		vm.written += n
	}
	vm.proc.Kill()
	vm.qmp.close()
	vm.proc, vm.qmp = nil, nil
	vm.changedLocked("power off (" + why + ")")
	if vm.onOff != nil {
		vm.onOff()
	}
	return true
}

// Reset restarts a running machine, as its reset button would.
func (vm *VM) Reset(why string) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.runningLocked() {
		return nil
	}
	first := vm.boot
	vm.boot = BootNone
	vm.changedLocked(fmt.Sprintf("reset (%s), boot %s", why, first))
	if err := vm.orderLocked(first); err != nil {
		return err
	}
	if err := vm.qmp.do("system_reset", nil, nil); err != nil {
		return err
	}
	return vm.orderLocked(BootNone)
}

// Soft presses the power button shortly; what happens is up to the guest.
func (vm *VM) Soft() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.runningLocked() {
		return nil
	}
	vm.changedLocked("power button pressed")
	return vm.qmp.do("system_powerdown", nil, nil)
}

// On tells whether the machine has power.
func (vm *VM) On() bool {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.onLocked()
}

func (vm *VM) onLocked() bool { return vm.waiting || vm.runningLocked() }

func (vm *VM) runningLocked() bool { return vm.proc != nil && vm.proc.Running() }

// SetBoot chooses what the firmware tries first at its next start.
func (vm *VM) SetBoot(dev BootDev) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.boot = dev
	vm.changedLocked("boot device " + string(dev))
}

// NextBoot is what the firmware will try first at its next start.
func (vm *VM) NextBoot() BootDev {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.boot
}

// orderLocked tells the running QEMU what comes first when it is next reset.
func (vm *VM) orderLocked(first BootDev) error {
	set := func(dev string, index int) error {
		return vm.qmp.do("qom-set", map[string]any{"path": "/machine/peripheral/" + dev, "property": "bootindex", "value": index}, nil)
	}
	for dev, index := range vm.bootIndex(first) {
		// An index that is in use is refused, also to the device that has it.
		if err := errors.Join(set(dev, -1), set(dev, index)); err != nil {
			return err
		}
	}
	return nil
}

// Written is how many bytes the machine has written to its disk, ever.
func (vm *VM) Written() (uint64, error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.runningLocked() {
		return vm.written, nil
	}
	n, err := vm.blockWritesLocked()
	return vm.written + n, err
}

func (vm *VM) blockWritesLocked() (uint64, error) {
	var stats []struct {
		Device string `json:"device"`
		Stats  struct {
			Written uint64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := vm.qmp.do("query-blockstats", nil, &stats); err != nil {
		return 0, err
	}
	for _, s := range stats {
		if s.Device == "d0" {
			return s.Stats.Written, nil
		}
	}
	return 0, errors.New("QEMU knows no disk d0")
}

func (vm *VM) changedLocked(what string) {
	vm.changes = append(vm.changes, what)
	vm.lab.Logf("%s: %s", vm.Name, what)
}
