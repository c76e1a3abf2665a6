package harness

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// BMC is OpenIPMI's ipmi_sim in front of a VM. It speaks RMCP+ on the BMC
// network and KCS, through a wire of its own, to the guest; both are the same
// BMC with the same address and MAC. It tells its GUID only over the network.
type BMC struct {
	Addr     string // on the BMC network, port 623
	User     string
	Password string
	MAC      string
	VM       *VM
	Log      string

	lab    *Lab
	proc   *Proc
	listen net.Listener
	serial *serialPort // nil without
	wg     sync.WaitGroup
}

// systemPort is where the QEMU of VM i finds its BMC.
func systemPort(i int) int { return 9000 + i }

// BMCSpec is what may differ between BMCs.
type BMCSpec struct {
	NoGUID  bool // its system GUID is all zeroes: it does not know the machine's UUID
	Console bool // it gives the machine's serial console by serial over LAN
}

// NewBMC starts the BMC of a machine.
func (l *Lab) NewBMC(ctx context.Context, vm *VM, spec BMCSpec) (*BMC, error) {
	sock, err := l.socketDir()
	if err != nil {
		return nil, err
	}
	b := &BMC{
		Addr: l.bmcAddr(vm.Index), User: "admin", Password: "e2e-" + l.Prefix,
		MAC: fmt.Sprintf("52:54:00:b0:00:%02x", vm.Index),
		VM:  vm, lab: l,
		Log: filepath.Join(vm.dir, "ipmi_sim.log"),
	}
	control := filepath.Join(sock, filepath.Base(vm.dir)+".bmc")
	if b.listen, err = net.Listen("unix", control); err != nil {
		return nil, err
	}
	b.wg.Go(b.serve)
	if spec.Console {
		if b.serial, err = l.serialPort(vm); err != nil {
			b.Close()
			return nil, err
		}
	}
	if err := b.start(control, spec); err != nil {
		b.Close()
		return nil, err
	}
	l.Defer(func() error { b.Close(); return nil })
	return b, Poll(ctx, "answer from the BMC of "+vm.Name, l.Limit(20*time.Second), func() (bool, error) {
		if !b.proc.Running() {
			return false, fmt.Errorf("ipmi_sim ended: %w, see %s", b.proc.Err(), b.Log)
		}
		_, err := b.Tool(ctx, 1, "mc", "info")
		return err == nil, err
	})
}

func (b *BMC) start(control string, spec BMCSpec) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	state := filepath.Join(b.VM.dir, "ipmi")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	helper := fmt.Sprintf("%s %s %s", exe, helperWord, control)
	auth := "none md2 md5 straight"
	system := guid(b.VM.UUID)
	if spec.NoGUID {
		system = strings.Repeat("0", 32)
	}
	sol := ""
	if b.serial != nil {
		sol = fmt.Sprintf("sol \"tcp:%s\" 115200\n", b.serial.listen.Addr())
	}
	conf := fmt.Sprintf(`name "%s"
set_working_mc 0x20
startlan 1
  addr %s 623
  priv_limit admin
  allowed_auths_callback %[3]s
  allowed_auths_user %[3]s
  allowed_auths_operator %[3]s
  allowed_auths_admin %[3]s
  guid %[4]s
  lan_config_program "%[5]s lan"
endlan
chassis_control "%[5]s chassis"
%[10]sserial kcs %[6]s %[7]d codec VM
user 1 true "" "" user 10 none md2 md5 straight
user 2 true "%[8]s" "%[9]s" admin 10 none md2 md5 straight
`, b.VM.Name, b.Addr, auth, system, helper, ctlBMC, systemPort(b.VM.Index), b.User, b.Password, sol)
	const emu = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n" +
		"sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n"
	confFile, emuFile := filepath.Join(b.VM.dir, "lan.conf"), filepath.Join(b.VM.dir, "bmc.emu")
	if err := errors.Join(os.WriteFile(confFile, []byte(conf), 0o600), os.WriteFile(emuFile, []byte(emu), 0o600)); err != nil {
		return err
	}
	b.proc, err = b.lab.Start(Cmd{
		Name: "ipmi_sim of " + b.VM.Name, NS: b.lab.NS("bmc"), Log: b.Log,
		Args: []string{"ipmi_sim", "-c", confFile, "-f", emuFile, "-s", state, "-n"},
	})
	return err
}

// guid is the system GUID as a BMC stores it: the bytes of the SMBIOS UUID,
// whose first three fields are little-endian.
func guid(uuid string) string {
	u, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(u) != 16 {
		return strings.Repeat("0", 32)
	}
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5] = u[5], u[4]
	u[6], u[7] = u[7], u[6]
	return hex.EncodeToString(u)
}

// Tool runs ipmitool against this BMC from the host of a peer. ipmi_sim needs
// up to 2 s for a chassis command; without -N 5 ipmitool repeats it after one,
// and it is carried out twice. Cipher suite 17 does not exist there.
func (b *BMC) Tool(ctx context.Context, peer int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.lab.Limit(30*time.Second))
	defer cancel()
	full := append([]string{"ipmitool", "-I", "lanplus", "-C", "3", "-N", "5", "-H", b.Addr, "-U", b.User, "-E"}, args...)
	out, err := b.lab.Output(ctx, Cmd{
		Name: "ipmitool " + strings.Join(args, " "), NS: b.lab.NS(fmt.Sprintf("p%d", peer)),
		Env: []string{"IPMI_PASSWORD=" + b.Password}, Args: full,
	})
	return strings.TrimSpace(out), err
}

// Close ends the BMC. The machine keeps its power.
func (b *BMC) Close() {
	if b.proc != nil {
		b.proc.Kill()
	}
	_ = b.listen.Close()
	if b.serial != nil {
		b.serial.close()
	}
	b.wg.Wait()
}

// serve answers the helper processes that ipmi_sim starts.
func (b *BMC) serve() {
	for {
		conn, err := b.listen.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			var args []string
			if err := json.NewDecoder(bufio.NewReader(conn)).Decode(&args); err != nil {
				return
			}
			out, err := b.handle(args)
			if err != nil {
				b.lab.Logf("BMC of %s: %v: %v", b.VM.Name, args, err)
				return // an answer without the end mark makes the helper fail
			}
			_, _ = io.WriteString(conn, out+helperEnd)
		})
	}
}

// handle does what ipmi_sim asks for: "chassis get power", "chassis set power
// 1", "lan get ip_addr", ...
func (b *BMC) handle(args []string) (string, error) {
	if len(args) < 2 {
		return "", errors.New("no such request")
	}
	var out strings.Builder
	kind, op, rest := args[0], args[1], args[2:]
	for len(rest) > 0 {
		key := rest[0]
		rest = rest[1:]
		if op == "set" {
			value := ""
			if len(rest) > 0 {
				value, rest = rest[0], rest[1:]
			}
			if kind == "chassis" {
				if err := b.set(key, value); err != nil {
					return "", err
				}
			}
			continue
		}
		fmt.Fprintf(&out, "%s:%s\n", key, b.get(key))
	}
	return out.String(), nil
}

func (b *BMC) get(key string) string {
	switch key {
	case "power":
		if b.VM.On() {
			return "1"
		}
		return "0"
	case "boot":
		return string(b.VM.NextBoot())
	case "ip_addr":
		if strings.Contains(b.Addr, ":") {
			return "0.0.0.0" // it has none
		}
		return b.Addr
	case "ip_addr_src":
		return "static"
	case "subnet_mask":
		return "255.255.255.0"
	case "mac_addr":
		return b.MAC
	}
	switch { // gateways that are not there
	case strings.HasSuffix(key, "mac_addr"):
		return "00:00:00:00:00:00"
	case strings.HasSuffix(key, "ip_addr"):
		return "0.0.0.0"
	}
	return "0"
}

func (b *BMC) set(key, value string) error {
	switch key {
	case "power":
		if value == "1" {
			return b.VM.PowerOn("BMC")
		}
		b.VM.PowerOff("BMC")
	case "reset":
		return b.VM.Reset("BMC")
	case "shutdown":
		return b.VM.Soft()
	case "boot":
		b.VM.SetBoot(BootDev(value))
	}
	return nil
}
