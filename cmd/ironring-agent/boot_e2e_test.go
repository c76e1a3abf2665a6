//go:build linux && e2e

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ironring/ironring/agent/agenttest"
	"github.com/ironring/ironring/agent/ramdisk"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/rootdisk"
)

// TestBoot boots the ramdisk on an emulated machine with QEMU's own network
// and has it do all that an agent does, against a scripted cluster.
func TestBoot(t *testing.T) {
	dir := t.TempDir()
	cache := filepath.Join(os.TempDir(), "ironring-e2e-kernel")
	k, err := ramdisk.FetchDebianKernel(context.Background(), cache)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "ironring-agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	man, err := ramdisk.Build(ramdisk.Options{Kernel: k.Image, ModulesDir: k.ModulesDir, Agent: bin, Out: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs %d bytes, %d without modules, %d modules", man.Initramfs.Size, man.BaseSize, len(man.Modules))

	for _, fw := range []string{"bios", "uefi"} {
		t.Run(fw, func(t *testing.T) { boot(t, dir, fw) })
	}
}

func boot(t *testing.T, ramdiskDir, fw string) {
	dir := t.TempDir()
	c := agenttest.New(t)
	c.SetPatience(5 * time.Minute)
	p := c.Peer("")
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	line := c.Line(p)

	img := make([]byte, 24<<20)
	rand.New(rand.NewSource(1)).Read(img[:8<<20])
	img[510], img[511] = 0x55, 0xaa
	if fw == "uefi" {
		img = espImage(t, dir)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(img))
	})}
	go srv.Serve(web)
	defer srv.Close()

	disk := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 64<<20); err != nil {
		t.Fatal(err)
	}
	serial := filepath.Join(dir, "serial.log")
	args := []string{"-n", "10", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "1024", "-smp", "1",
		"-nodefaults", "-display", "none", "-no-reboot", "-uuid", "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001",
		"-smbios", "type=1,serial=VM1,uuid=4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001",
		"-kernel", filepath.Join(ramdiskDir, ramdisk.KernelFile), "-initrd", filepath.Join(ramdiskDir, ramdisk.InitramfsFile),
		"-append", fmt.Sprintf("console=ttyS0 quiet %s=%s %s=%s %s=10.0.2.2:%s %s=%s %s=01-52-54-00-77-00-01",
			agentproto.LineNode, line.Node, agentproto.LineNonce, line.Nonce, agentproto.LinePeers, port, agentproto.LineCA, line.CADigest, agentproto.LineBootIF),
		"-nic", "user,model=virtio-net-pci,mac=52:54:00:77:00:01", "-serial", "file:" + serial,
		"-drive", "if=none,id=d0,format=raw,cache=unsafe,file=" + disk, "-device", "virtio-blk-pci,drive=d0,serial=LAB-0",
		"-drive", "if=none,id=d1,format=raw,cache=unsafe,file=" + empty(t, dir, "sata.raw"), "-device", "ide-hd,drive=d1,serial=LAB-1",
		"-drive", "if=none,id=d2,format=raw,cache=unsafe,file=" + empty(t, dir, "nvme.raw"), "-device", "nvme,drive=d2,serial=LAB-2",
		"-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0", "-device", "virtio-rng-pci"}
	if fw == "uefi" {
		vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
		if err != nil {
			t.Fatalf("package ovmf: %v", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,unit=1,format=raw,file="+filepath.Join(dir, "vars.fd"))
	}
	began := time.Now()
	vm := exec.Command("nice", args...)
	vm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	vm.Stderr = &stderr
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- vm.Wait() }()
	defer func() {
		vm.Process.Kill()
		if t.Failed() {
			b, _ := os.ReadFile(serial)
			t.Logf("console:\n%s\n%s", b, stderr.String())
		}
	}()

	h := c.WaitHello(1)
	t.Logf("power-on to hello: %.1f s", time.Since(began).Seconds())
	if h.NodeId != line.Node {
		t.Error(h)
	}
	if e := c.Enrols()[0]; e.SystemUuid != "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001" || e.Serial != "VM1" || len(e.Macs) != 1 || e.Macs[0] != "52:54:00:77:00:01" {
		t.Errorf("enrolment %v", e)
	}
	c.Hello(1)
	c.Command(1, "inv", agentproto.CmdInventory, nil)
	st := c.WaitEnd("inv")
	t.Logf("inventory: %s %s", st.Result, st.Error)
	var inv agentproto.Inventory
	if err := json.Unmarshal(st.Result, &inv); err != nil {
		t.Fatal(st)
	}
	if len(inv.Disks) != 3 || inv.BootMode != fw || len(inv.Interfaces) != 1 || len(inv.Interfaces[0].Addrs) == 0 {
		t.Errorf("inventory %+v", inv)
	}
	if strings.Contains(inv.BMC.Error, "/dev/ipmi0 is not there") {
		t.Errorf("bmc: %+v", inv.BMC)
	}
	serials := map[string]agentproto.Disk{}
	for _, d := range inv.Disks {
		serials[d.Serial] = d
	}
	for s, name := range map[string]string{"LAB-0": "/dev/vda", "LAB-1": "/dev/sda", "LAB-2": "/dev/nvme0n1"} {
		if serials[s].Name != name || serials[s].ByPath == "" || serials[s].Excluded != "" {
			t.Errorf("disk %s: %+v", s, serials[s])
		}
	}
	d := serials["LAB-0"]
	id := agentproto.DiskID{Name: d.Name, Serial: d.Serial, WWN: d.WWN, ByPath: d.ByPath, SizeBytes: d.SizeBytes}

	c.Command(1, "erase", agentproto.CmdEraseMetadata, asJSON(t, agentproto.EraseArgs{Disks: rootdisk.Judge(inv.Disks)}))
	if st := c.WaitEnd("erase"); st.State != api.CommandStatus_DONE {
		t.Error(st)
	}
	sum := sha256.Sum256(img)
	c.Command(1, "write", agentproto.CmdWriteImage, asJSON(t, agentproto.WriteImageArgs{
		URLs: []string{"http://10.0.2.2:" + portOf(t, web) + "/disk.img"}, Checksum: "sha256:" + hex.EncodeToString(sum[:]), Disk: agentproto.JudgedDisk{DiskID: id},
	}))
	st = c.WaitEnd("write")
	if st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	t.Logf("write: %s", st.Result)
	c.Command(1, "boot", agentproto.CmdBootEntry, asJSON(t, agentproto.BootEntryArgs{Disk: id}))
	st = c.WaitEnd("boot")
	t.Logf("boot entry: %s %s", st.Result, st.Error)
	if st.State != api.CommandStatus_DONE || !strings.Contains(string(st.Result), `"mode":"`+fw+`"`) || fw == "uefi" && !strings.Contains(string(st.Result), `"entry":"Boot`) {
		t.Error(st)
	}
	c.Command(1, "off", agentproto.CmdPowerOff, nil)
	if st := c.WaitEnd("off"); st.State != api.CommandStatus_DONE {
		t.Error(st)
	}
	select {
	case <-gone:
	case <-time.After(2 * time.Minute):
		t.Error("the machine does not power off")
	}
	got, err := os.ReadFile(disk)
	if err != nil || !bytes.Equal(got[:len(img)], img) {
		t.Error("the disk does not hold the image", err)
	}
	b, _ := os.ReadFile(serial)
	t.Logf("console:\n%s", b)
}

func portOf(t *testing.T, l net.Listener) string {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func empty(t *testing.T, dir, name string) string {
	p := filepath.Join(dir, name)
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(5 << 30); err != nil {
		t.Fatal(err)
	}
	return p
}

func asJSON(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// espImage is a GPT disk with an EFI system partition that holds a file at the
// removable-media path.
func espImage(t *testing.T, dir string) []byte {
	path := filepath.Join(dir, "esp.img")
	script := fmt.Sprintf(`set -e
truncate -s 48M %[1]s
printf 'label: gpt\nstart=2048, size=90000, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n' | sfdisk -q %[1]s
mkfs.vfat -F 32 --offset 2048 %[1]s 45000 >/dev/null
export MTOOLS_SKIP_CHECK=1
mmd -i %[1]s@@1048576 ::/EFI ::/EFI/BOOT
echo loader | mcopy -i %[1]s@@1048576 - ::/EFI/BOOT/BOOTX64.EFI
`, path)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("make the image (packages fdisk, dosfstools, mtools): %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
