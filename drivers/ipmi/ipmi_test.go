package ipmi_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/ipmi"
	"github.com/ironring/ironring/internal/errs"
)

const on = api.PowerAction_POWER_ACTION_ON

func driver(t *testing.T, path string) *ipmi.Driver {
	t.Helper()
	d, err := ipmi.New(ipmi.Config{Ipmitool: path})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wants(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil || errs.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v (%v), want %v with %q", err, errs.KindOf(err), kind, text)
	}
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Error("the error holds the password")
	}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		b := newBMC(t)
		return drivertest.Fixture{
			Driver: driver(t, b.path), Target: b.target(),
			WrongPassword: b.with("ipmi_password", "wr0ng-one").Info,
			Secrets:       []string{secret, "wr0ng-one"},
			Changes:       func() int { return b.get(func() int { return b.changes }) },
			Silence:       func() { b.set(func() { b.silent = "all" }) },
			Console:       b.print,
		}
	})
}

// TestArguments shows that one change is one run of ipmitool, with the suite
// and the resends that were asked for and without the password.
func TestArguments(t *testing.T) {
	b := newBMC(t)
	d, ctx := driver(t, b.path), timeout(t, 10*time.Second)
	if err := d.SetPower(ctx, b.target(), drivertest.NewGrant(time.Minute), on); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PowerState(ctx, b.with("ipmi_cipher_suite", "3")); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.runs) != 2 {
		t.Fatalf("%d runs", len(b.runs))
	}
	for i, suite := range []string{"-C 17", "-C 3"} {
		args := strings.Join(b.runs[i].Argv, " ")
		for _, want := range []string{"-I lanplus", suite + " ", "-N 5 ", "-R 1 ", "-E ", "-L ADMINISTRATOR", "-H 127.0.0.1 "} {
			if !strings.Contains(args, want) {
				t.Errorf("run %d lacks %q: %s", i, want, args)
			}
		}
		if strings.Contains(args, secret) || strings.Contains(args, "-vv") {
			t.Errorf("run %d: %s", i, args)
		}
		if n := len(b.runs[i].Env); n != 4 {
			t.Errorf("run %d has %d environment variables, want 4", i, n)
		}
	}
}

func TestOutcomes(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*fakeBMC)
		want    errs.Kind
		text    string
	}{
		"silent":          {func(b *fakeBMC) { b.silent = "all" }, errs.Unreachable, "does not answer"},
		"silent later":    {func(b *fakeBMC) { b.silent = "command" }, errs.Timeout, "outcome is unknown"},
		"not IPMI":        {func(b *fakeBMC) { b.rubbish = true }, errs.Internal, "does not speak IPMI"},
		"nobody there":    {func(b *fakeBMC) { b.conn.Close() }, errs.Unreachable, "nobody listens"},
		"unknown user":    {login("RAKP 2 message indicates an error : unauthorized name\n"), errs.Denied, "does not know the user"},
		"no such suite":   {login("Error in open session response message : no matching cipher suite\n"), errs.Invalid, "ipmi_cipher_suite"},
		"suite, ipmi_sim": {login("Error in open session response message : invalid authentication algorithm\n\n"), errs.Invalid, "ipmi_cipher_suite"},
		"no room":         {login("RAKP 2 message indicates an error : insufficient resources for session\n"), errs.Busy, "no room"},
		"no right": {says(told{Err: "Set Chassis Power Control to Up/On failed: Insufficient privilege level\n", Exit: 1}),
			errs.Denied, "lacks the right"},
		"not now": {says(told{Err: "Set Chassis Power Control to Up/On failed: Command not supported in present state\n", Exit: 1}),
			errs.Busy, "present state"},
		"another error": {says(told{Err: "Set Chassis Power Control to Up/On failed: Unknown (0xC1) " + secret + "\n", Exit: 1}),
			errs.Internal, "Unknown (0xC1)"},
		"another answer": {says(told{Out: "Chassis Power Control: Maybe\n"}), errs.Internal, "not understood"},
		"no answer":      {says(told{}), errs.Internal, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBMC(t)
			b.set(func() { test.prepare(b) })
			limit := time.Minute
			if strings.HasPrefix(name, "silent") {
				limit = patience - time.Second
			}
			err := driver(t, b.path).SetPower(timeout(t, limit), b.target(), drivertest.NewGrant(time.Minute), on)
			wants(t, err, test.want, test.text)
		})
	}
}

// TestToolGivesUp shows what is made of an ipmitool that ends by itself
// because the BMC is silent.
func TestToolGivesUp(t *testing.T) {
	for silent, test := range map[string]struct {
		read, change errs.Kind
	}{
		"all":     {errs.Unreachable, errs.Unreachable},
		"command": {errs.Timeout, errs.Timeout},
	} {
		t.Run(silent, func(t *testing.T) {
			t.Parallel()
			b := newBMC(t)
			b.set(func() { b.silent = silent })
			d := driver(t, b.path)
			_, err := d.PowerState(timeout(t, 30*time.Second), b.target())
			wants(t, err, test.read, "answer")
			err = d.SetPower(timeout(t, 30*time.Second), b.target(), drivertest.NewGrant(time.Minute), on)
			wants(t, err, test.change, "answer")
		})
	}
}

func login(text string) func(*fakeBMC) {
	return func(b *fakeBMC) { b.answers["login"] = told{Err: text + noSession, Exit: 1} }
}

func says(a told) func(*fakeBMC) {
	return func(b *fakeBMC) { b.answers["chassis power on"] = a }
}

// TestAlreadyThere shows that a BMC that refuses to switch off what is off
// makes no error.
func TestAlreadyThere(t *testing.T) {
	b := newBMC(t)
	b.set(func() {
		b.answers["chassis power off"] = told{Err: "Set Chassis Power Control to Down/Off failed: Command not supported in present state\n", Exit: 1}
	})
	err := driver(t, b.path).SetPower(timeout(t, 5*time.Second), b.target(), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_OFF)
	if err != nil {
		t.Error(err)
	}
}

// TestGrantStopsDatagrams shows that the relay asks for the grant before each
// datagram: the login was allowed, the command is not let out.
func TestGrantStopsDatagrams(t *testing.T) {
	b := newBMC(t)
	g := &spent{Grant: drivertest.NewGrant(time.Minute), after: 3}
	err := driver(t, b.path).SetPower(timeout(t, 5*time.Second), b.target(), g, on)
	if errs.KindOf(err) != errs.Fenced {
		t.Errorf("the error is %v", err)
	}
	if n := b.get(func() int { return b.changes }); n != 0 {
		t.Errorf("%d changes after the grant had ended", n)
	}
}

// spent is a grant that ends after so many checks.
type spent struct {
	*drivertest.Grant
	after int
}

func (s *spent) Check() error {
	err := s.Grant.Check()
	if s.Checks() >= s.after {
		s.End()
	}
	return err
}

func TestProcessGroupIsKilled(t *testing.T) {
	b := newBMC(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "slow")
	fifo := filepath.Join(dir, "alive")
	// The sleep is a child that keeps the script's pipes.
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 300 &\necho $! >"+fifo+"\nwait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := driver(t, script).PowerState(timeout(t, 500*time.Millisecond), b.target())
	wants(t, err, errs.Unreachable, "does not answer")
	if took := time.Since(begin); took > 1400*time.Millisecond {
		t.Errorf("took %v: the child was not killed with its group", took)
	}
	pid, err := os.ReadFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(5 * time.Second); alive(strings.TrimSpace(string(pid))); {
		if time.Now().After(limit) {
			t.Fatal("the child of ipmitool lives on")
		}
	}
}

// alive is false for a process that has ended, reaped or not.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestNotInstalled(t *testing.T) {
	b := newBMC(t)
	_, err := driver(t, "/nonexistent/ipmitool").PowerState(timeout(t, time.Second), b.target())
	wants(t, err, errs.Unsupported, "not installed")
}

func TestIdentify(t *testing.T) {
	b := newBMC(t)
	facts, err := driver(t, b.path).Identify(timeout(t, 10*time.Second), b.target())
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{facts.SystemUuid, facts.Serial, facts.Vendor, facts.Model, facts.Firmware,
		strings.Join(facts.BmcAddresses, " "), strings.Join(facts.BmcMacs, " ")}, "|")
	want := "4c4c4544-0035-4d10-8032-b4c04f4a3332|S252556X8A12345|Supermicro|SYS-5019S-M|9.08|10.20.30.40|ac:1f:6b:12:34:56"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b.mu.Lock()
	b.answers["raw 0x06 0x37"] = told{Err: "Unable to send RAW command (channel=0x0 netfn=0x6 lun=0x0 cmd=0x37 rsp=0xc1): Invalid command\n", Exit: 1}
	b.answers["fru print 0"] = told{Out: read(t, "fru_absent.ipmi_sim.txt"), Exit: 1}
	b.answers["lan print"] = told{Out: read(t, "lan_print.ipmi_sim.txt")}
	b.mu.Unlock()
	facts, err = driver(t, b.path).Identify(timeout(t, 10*time.Second), b.target())
	if err != nil || facts.SystemUuid != "" || facts.Serial != "" || facts.BmcAddresses != nil || facts.Vendor != "MontaVista Software, Inc." {
		t.Errorf("a BMC that says little gives %v, %v", facts, err)
	}
}

// A BMC whose answer is not understood does not pass for one that tells nothing.
func TestIdentifyRubbish(t *testing.T) {
	const raw = "Unable to send RAW command (channel=0x0 netfn=0x6 lun=0x0 cmd=0x37 rsp=0x"
	absent := map[string]told{"raw 0x06 0x37": {Err: raw + "c1): Invalid command\n", Exit: 1}}
	for name, c := range map[string]struct {
		answers map[string]told
		known   bool
	}{
		"no GUID":                        {absent, true},
		"no GUID, for no reason":         {map[string]told{"raw 0x06 0x37": {Err: raw + "ff): Unspecified error\n", Exit: 1}}, true},
		"no GUID, no LAN":                {map[string]told{"lan print": {Err: "Invalid channel: 7\n", Exit: 1}}, true},
		"no GUID, no FRU":                {map[string]told{"fru print 0": {Out: " Device not present (Requested sensor, data, or record not found)\n", Exit: 1}}, true},
		"no GUID, blank FRU":             {map[string]told{"fru print 0": {Out: " Unknown FRU header version 0x00\n", Exit: 1}}, true},
		"no GUID, rubbish for a product": {map[string]told{"mc info": {Err: "garbled\n", Exit: 1}}, true},
		"rubbish for a GUID":             {map[string]told{"raw 0x06 0x37": {Err: "Unable to send RAW command: garbled\n", Exit: 1}}, false},
		"half a GUID":                    {map[string]told{"raw 0x06 0x37": {Out: " 01 02 03\n"}}, false},
		"GUID timed out":                 {map[string]told{"raw 0x06 0x37": {Err: raw + "c3): Timeout\n", Exit: 1}}, false},
		"rubbish for a LAN":              {map[string]told{"lan print": {Err: "garbled\n", Exit: 1}}, false},
		"rubbish for a FRU":              {map[string]told{"fru print 0": {Out: " Device not present (Timeout)\n", Exit: 1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBMC(t)
			b.mu.Lock()
			maps.Copy(b.answers, absent)
			maps.Copy(b.answers, c.answers)
			b.mu.Unlock()
			facts, err := driver(t, b.path).Identify(timeout(t, 10*time.Second), b.target())
			if (err == nil) != c.known || err != nil && errs.KindOf(err) != errs.Internal {
				t.Errorf("%v, %v", facts, err)
			}
		})
	}
	// Once the UUID is told, the rest is no condition.
	b := newBMC(t)
	b.mu.Lock()
	b.answers["fru print 0"], b.answers["lan print"] = told{Err: "garbled\n", Exit: 1}, told{Err: "garbled\n", Exit: 1}
	b.mu.Unlock()
	if facts, err := driver(t, b.path).Identify(timeout(t, 10*time.Second), b.target()); err != nil || facts.GetSystemUuid() == "" {
		t.Errorf("with a UUID: %v, %v", facts, err)
	}
	facts, err := driver(t, "/nonexistent/ipmitool").Identify(timeout(t, time.Second), b.target())
	if facts != nil {
		t.Errorf("nobody asked, and it is %v", facts)
	}
	wants(t, err, errs.Unsupported, "not installed")
}

func TestValidate(t *testing.T) {
	good := drivers.Info{"ipmi_address": "10.0.0.1", "ipmi_username": "u", "ipmi_password": "p", "deploy_kernel": "x"}
	if err := driver(t, "").Validate(good); err != nil {
		t.Error(err)
	}
	for key, value := range map[string]any{
		"ipmi_address": "10.0.0.1:623", "ipmi_port": 70000.0, "ipmi_cipher_suite": "0", "ipmi_password": strings.Repeat("x", 21),
		"ipmi_username": strings.Repeat("x", 17), "ipmi_priv_level": "root", "ipmi_protocol_version": "1.5",
		"ipmi_bridging": "dual", "ipmi_addres": "10.0.0.1",
	} {
		bad := drivers.Info{}
		for k, v := range good {
			bad[k] = v
		}
		bad[key] = value
		err := driver(t, "").Validate(bad)
		if errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) != key {
			t.Errorf("%s = %v: %v (subject %q)", key, value, err, errs.SubjectOf(err))
		}
	}
}
