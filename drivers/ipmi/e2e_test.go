//go:build e2e

package ipmi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
)

// simulator is OpenIPMI's ipmi_sim on a loopback port: a BMC that is not ours.
type simulator struct {
	t    *testing.T
	dir  string
	port int
	cmd  *exec.Cmd
	tty  serial
}

// serial is the machine behind the BMC, as far as its serial port goes: what it
// prints, ipmi_sim reads.
type serial struct {
	mu   sync.Mutex
	conn net.Conn // guarded by mu; of ipmi_sim
}

// listen is where ipmi_sim finds it.
func (s *serial) listen(t *testing.T) (port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.conn != nil {
				s.conn.Close()
			}
			s.conn = conn
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conn != nil {
			s.conn.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// print is lost while ipmi_sim does not read.
func (s *serial) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(s.conn, text)
	}
}

const simPassword = "p4ss-w0rd'$1" // ipmi_sim takes no blanks and quotation marks

// The script that ipmi_sim runs for chassis commands: state in files.
const chassisControl = `#!/bin/sh
D=%s
echo "$*" >>$D/calls
op=$1; shift
while [ $# -gt 0 ]; do
	case $op:$1 in
	get:power) echo power:$(cat $D/power 2>/dev/null || echo 0); shift ;;
	get:boot) echo boot:$(cat $D/boot 2>/dev/null || echo none); shift ;;
	get:*) shift ;;
	set:power) echo $2 >$D/power; shift 2 ;;
	set:boot) echo $2 >$D/boot; shift 2 ;;
	*) shift; [ $# = 0 ] || shift ;;
	esac
done
`

const lanConf = `name "test"
set_working_mc 0x20
startlan 1
  addr 127.0.0.1 %d
  priv_limit admin
  allowed_auths_callback none md2 md5 straight
  allowed_auths_user none md2 md5 straight
  allowed_auths_operator none md2 md5 straight
  allowed_auths_admin none md2 md5 straight
  guid 44454c4c3500104d8032b4c04f4a3332
endlan
chassis_control "%s/chassis-control"
sol "tcp:127.0.0.1:%d" 115200
user 1 true "" "" user 10 none md2 md5 straight
user 2 true "admin" "%s" admin 10 none md2 md5 straight
`

const emulator = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

func startSimulator(t *testing.T) *simulator {
	t.Helper()
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.LocalAddr().(*net.UDPAddr).Port
	probe.Close()
	s := &simulator{t: t, dir: t.TempDir(), port: port}

	for name, text := range map[string]string{
		"chassis-control": fmt.Sprintf(chassisControl, s.dir),
		"lan.conf":        fmt.Sprintf(lanConf, port, s.dir, s.tty.listen(t), simPassword),
		"bmc.emu":         emulator,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.cmd = exec.Command("ipmi_sim", "-c", filepath.Join(s.dir, "lan.conf"), "-f", filepath.Join(s.dir, "bmc.emu"), "-s", s.dir, "-n")
	var log bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended by itself
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("ipmi_sim: %s", log.String())
		}
	})
	// It answers when it is ready.
	d := driver(t, "")
	for limit := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := d.PowerState(ctx, s.target())
		cancel()
		if err == nil {
			return s
		}
		if time.Now().After(limit) {
			t.Fatalf("ipmi_sim does not answer: %v", err)
		}
	}
}

func (s *simulator) target() drivers.Target {
	return drivers.Target{NodeID: "n1", Driver: "ipmi", Info: drivers.Info{
		"ipmi_address": "127.0.0.1", "ipmi_port": strconv.Itoa(s.port), "ipmi_cipher_suite": 3,
		"ipmi_username": "admin", "ipmi_password": simPassword,
	}}
}

// changes counts what the BMC made of the commands.
func (s *simulator) changes() int {
	data, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil {
		return 0 // not asked yet
	}
	return strings.Count("\n"+string(data), "\nset ")
}

// stop stops ipmi_sim without ending it: it is silent, and nothing says so.
func (s *simulator) stop() {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
}

func TestSimulatorConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		s := startSimulator(t)
		wrong := s.target().Info
		wrong["ipmi_password"] = "wr0ng-one"
		return drivertest.Fixture{
			Driver: driver(t, ""), Target: s.target(), WrongPassword: wrong,
			Secrets: []string{simPassword, "wr0ng-one"},
			Changes: s.changes, Silence: s.stop, Settle: 15 * time.Second, Console: s.tty.print,
		}
	})
}

func TestSimulatorIdentity(t *testing.T) {
	s := startSimulator(t)
	facts, err := driver(t, "").Identify(timeout(t, 30*time.Second), s.target())
	if err != nil {
		t.Fatal(err)
	}
	if facts.SystemUuid != "4c4c4544-0035-4d10-8032-b4c04f4a3332" || len(facts.SystemUuids) != 3 || facts.Firmware != "9.08" {
		t.Errorf("facts are %v", facts)
	}
}

// TestSimulatorRefusals shows what the real ipmitool prints is understood.
func TestSimulatorRefusals(t *testing.T) {
	s := startSimulator(t)
	for key, test := range map[string]struct {
		value any
		want  errs.Kind
		text  string
	}{
		"ipmi_username":     {"nobody", errs.Denied, "does not know the user"},
		"ipmi_password":     {"wr0ng", errs.Denied, "refuses the password"},
		"ipmi_cipher_suite": {17, errs.Invalid, "ipmi_cipher_suite"},
		"ipmi_port":         {1, errs.Unreachable, "nobody listens"},
	} {
		target := s.target()
		target.Info[key] = test.value
		_, err := driver(t, "").PowerState(timeout(t, 20*time.Second), target)
		wants(t, err, test.want, test.text)
	}
}

// TestSlowBMCActsOnce shows that a BMC that takes its time gets each command
// once: what ipmitool's own interval would have repeated after a second.
func TestSlowBMCActsOnce(t *testing.T) {
	s := startSimulator(t)
	path := filepath.Join(s.dir, "chassis-control")
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slow := strings.Replace(string(script), "op=$1;", "[ $1 = get ] || sleep 2.5\nop=$1;", 1)
	if err := os.WriteFile(path, []byte(slow), 0o700); err != nil {
		t.Fatal(err)
	}
	before := s.changes()
	err = driver(t, "").SetPower(timeout(t, 20*time.Second), s.target(), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.changes() - before; n != 1 {
		t.Errorf("carried out %d times", n)
	}
}
