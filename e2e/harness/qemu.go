package harness

import (
	"fmt"
	"os"
	"regexp"
)

// How QEMU is told what a machine is made of.

var virtualization = regexp.MustCompile(`(?m)^flags.*\b(vmx|svm)\b`)

// Accel is how QEMU runs machines here. A /dev/kvm alone proves nothing: some
// hosts offer one without hardware behind it that never gets past the firmware.
// IRONRING_E2E_ACCEL overrides.
func Accel() string {
	if a := os.Getenv("IRONRING_E2E_ACCEL"); a != "" {
		return a
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !virtualization.Match(cpu) {
		return "tcg"
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg"
	}
	_ = kvm.Close()
	return "kvm"
}

// machine are the arguments that every QEMU of the lab has.
func machine() []string {
	cpu := "max"
	if Accel() == "kvm" {
		cpu = "host"
	}
	return []string{
		"qemu-system-x86_64", "-machine", "q35", "-accel", Accel(), "-cpu", cpu, "-smp", "1", "-m", "1024",
		"-no-user-config", "-nodefaults", "-display", "none", "-vga", "none", "-device", "virtio-rng-pci",
	}
}

func (vm *VM) argsLocked(first BootDev) []string {
	index := vm.bootIndex(first)
	nic := fmt.Sprintf("virtio-net-pci,id=nic0,netdev=n0,mac=%s,bootindex=%d", vm.MAC, index["nic0"])
	args := machine()
	switch vm.fw {
	case BIOS:
		// Without graphics SeaBIOS and iPXE speak on the serial port.
		args = append(args, "-machine", "graphics=off")
	default:
		nic += ",romfile=" // without the NIC's own iPXE, so that the firmware's client is used
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+ovmf+"OVMF_CODE_4M.fd",
			"-drive", "if=pflash,unit=1,format=raw,file="+vm.vars)
	}
	if vm.fw == UEFIHTTP {
		args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no")
	}
	if vm.rtc != "" {
		args = append(args, "-rtc", "base="+vm.rtc)
	}
	if vm.cd {
		args = append(args, vm.cdArgsLocked(index["cd0"])...)
	} else {
		args = append(args,
			// The system interface to its BMC: the same ipmi_sim that answers over the network.
			"-chardev", fmt.Sprintf("socket,id=ipmi0,host=%s,port=%d,reconnect=1", ctlBMC, systemPort(vm.Index)),
			"-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0")
	}
	if vm.MAC2 != "" {
		// Sums are made by the guest: who takes tags off passes frames on as they are.
		const whole = ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"
		nic += whole
		args = append(args, "-netdev", "tap,id=n1,ifname="+tapOf(MaxVMs)+",script=no,downscript=no",
			"-device", "virtio-net-pci,id=nic1,netdev=n1,romfile=,mac="+vm.MAC2+whole)
	}
	return append(args,
		"-name", vm.lab.Prefix+"-"+vm.Name, "-uuid", vm.UUID,
		"-smbios", fmt.Sprintf("type=1,manufacturer=Ironring,product=E2E,serial=%s,uuid=%s", vm.Serial, vm.UUID),
		"-netdev", "tap,id=n0,ifname="+vm.tap()+",script=no,downscript=no", "-device", nic,
		"-drive", "if=none,id=d0,format=raw,discard=unmap,cache=unsafe,file="+vm.Disk,
		"-device", fmt.Sprintf("virtio-blk-pci,id=disk0,drive=d0,serial=%s,bootindex=%d", vm.DiskID, index["disk0"]),
		"-chardev", "file,id=console,append=on,path="+vm.Console.File, "-serial", "chardev:console",
		// A guest that powers off leaves QEMU paused, so that the bytes written can still be read.
		"-no-shutdown", "-qmp", "unix:"+vm.sock+",server=on,wait=off")
}

// bootIndex is the place of each device in the order of the firmware: first,
// if that is one of them, then disk, network, CD.
func (vm *VM) bootIndex(first BootDev) map[string]int {
	order := map[string]int{"disk0": 2, "nic0": 3}
	if vm.cd {
		order["cd0"] = 4
	}
	switch {
	case first == BootPXE:
		order["nic0"] = 1
	case first == BootCD && vm.cd:
		order["cd0"] = 1
	}
	return order
}
