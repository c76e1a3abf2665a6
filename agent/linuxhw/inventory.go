//go:build linux

package linuxhw

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// Inventory implements agent.Hardware.
func (m *Machine) Inventory(ctx context.Context) (*agentproto.Inventory, error) {
	disks, err := m.Disks(ctx) // waits for devices
	if err != nil {
		return nil, err
	}
	id, err := m.Identity(ctx)
	if err != nil {
		return nil, err
	}
	inv := &agentproto.Inventory{
		SystemUUID: id.SystemUUID, Serial: id.Serial,
		Manufacturer: dmi(m.read("sys/class/dmi/id/sys_vendor")), Product: dmi(m.read("sys/class/dmi/id/product_name")),
		BIOSVersion: m.read("sys/class/dmi/id/bios_version"), BootMode: "bios",
		CPUs: runtime.NumCPU(), CPUModel: m.cpuModel(), Arch: runtime.GOARCH, MemoryBytes: m.memory(),
		Interfaces: m.interfaces(), Disks: disks, BMC: m.bmc(ctx),
	}
	if m.EFI() != nil {
		inv.BootMode = "uefi"
	}
	return inv, ctx.Err()
}

func (m *Machine) cpuModel() string {
	for l := range strings.SplitSeq(m.read("proc/cpuinfo"), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// memory is what the kernel can use, which is a little less than is built in.
func (m *Machine) memory() uint64 {
	for l := range strings.SplitSeq(m.read("proc/meminfo"), "\n") {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "MemTotal:" {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

const arphrdEther = "1"

// interfaces are the Ethernet NICs that are hardware.
func (m *Machine) interfaces() []agentproto.Interface {
	var out []agentproto.Interface
	for _, name := range m.names("sys/class/net") {
		dir := "sys/class/net/" + name
		mac := strings.ToLower(m.read(dir, "address"))
		// Without a device it is a bridge, a bond, a tunnel.
		if m.read(dir, "type") != arphrdEther || m.link(dir, "device") == "" || len(mac) != 17 || mac == "00:00:00:00:00:00" {
			continue
		}
		i := agentproto.Interface{Name: name, MAC: mac, Driver: base(m.link(dir, "device/driver")), Carrier: m.read(dir, "carrier") == "1"}
		if s, err := strconv.Atoi(m.read(dir, "speed")); err == nil && s > 0 {
			i.Speed = s
		}
		if m.cfg.Root == "" {
			i.Addrs = addresses(name)
		}
		out = append(out, i)
	}
	return out
}

func addresses(name string) []string {
	n, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	list, err := n.Addrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// bmcError is the text of a BMC that could not be asked.
func bmcError(format string, args ...any) agentproto.BMC {
	return agentproto.BMC{Error: errs.New(errs.Unsupported, format, args...).Error()}
}
