//go:build e2e

package ipmi_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/bmc"
)

// The real ipmitool against go-ipmi's BMC server, by cipher suite 17 (SHA-256),
// which ipmi_sim does not have.

const rmcpPassword = "p4ss wörd '$1\""

// rmcp is a simulated BMC with an IPMI face, behind a wire that can be cut.
type rmcp struct {
	*bmc.BMC
	face   *bmc.RMCP
	port   string
	silent atomic.Bool
}

func startRMCP(t *testing.T, suites ...int) *rmcp {
	t.Helper()
	b, err := bmc.New(bmc.Config{
		Password: rmcpPassword, UUID: "4c4c4544-0035-4d10-8032-b4c04f4a3332", Serial: "SN7", Model: "Server 7", Manufacturer: "Acme",
		MAC: "52:54:00:aa:bb:01", PowerDelay: 30 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	face, err := b.NewRMCP(bmc.RMCPConfig{Suites: suites})
	if err != nil {
		t.Fatal(err)
	}
	r := &rmcp{BMC: b, face: face}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{b.Run, face.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, r.port, _ = net.SplitHostPort(front.LocalAddr().String())
	info := face.Info()
	wg.Go(func() {
		r.wire(front, net.JoinHostPort(info["ipmi_address"].(string), info["ipmi_port"].(string)), &wg)
	})
	t.Cleanup(func() { cancel(); front.Close(); wg.Wait() })
	return r
}

// wire carries datagrams, while it is not silent, from each client by a socket
// of its own.
func (r *rmcp) wire(front net.PacketConn, to string, wg *sync.WaitGroup) {
	backs := map[string]net.Conn{}
	defer func() {
		for _, b := range backs {
			b.Close()
		}
	}()
	buf := make([]byte, 4096)
	for {
		n, from, err := front.ReadFrom(buf)
		if err != nil {
			return
		}
		back := backs[from.String()]
		if back == nil {
			if back, err = net.Dial("udp", to); err != nil {
				return
			}
			backs[from.String()] = back
			wg.Go(func() {
				in := make([]byte, 4096)
				for {
					n, err := back.Read(in)
					if err != nil {
						return
					}
					if !r.silent.Load() {
						_, _ = front.WriteTo(in[:n], from)
					}
				}
			})
		}
		if !r.silent.Load() {
			_, _ = back.Write(buf[:n])
		}
	}
}

func (r *rmcp) target() drivers.Target {
	info := drivers.Info(r.face.Info())
	info["ipmi_port"] = r.port
	return drivers.Target{NodeID: "n1", Driver: "ipmi", Info: info}
}

func TestRMCPConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		r := startRMCP(t)
		wrong := r.target().Info
		wrong["ipmi_password"] = "wr0ng-one"
		if wrong["ipmi_cipher_suite"] != 17 {
			t.Fatalf("cipher suite %v", wrong["ipmi_cipher_suite"])
		}
		return drivertest.Fixture{
			Driver: driver(t, ""), Target: r.target(), WrongPassword: wrong, Secrets: []string{rmcpPassword, "wr0ng-one"},
			Changes: func() int { return r.Stats().Changes }, Silence: func() { r.silent.Store(true) }, Settle: 15 * time.Second,
		}
	})
}

// What the real ipmitool prints of sensors, events, parts and the LED is
// understood.
func TestRMCPHardware(t *testing.T) {
	r := startRMCP(t)
	r.Log("Critical", "it is hot")
	d, ctx := driver(t, ""), timeout(t, time.Minute)
	sensors, err := d.Sensors(ctx, r.target())
	if err != nil || len(sensors) != 1 || sensors[0].GetName() != "Inlet Temp" || sensors[0].GetValue() != 23 || sensors[0].GetUnit() != "C" ||
		sensors[0].GetKind() != "temperature" || sensors[0].GetState() != api.Sensor_OK {
		t.Errorf("sensors: %v, %v", sensors, err)
	}
	events, err := d.Events(ctx, r.target())
	if err != nil || len(events) != 1 || time.Since(time.UnixMilli(events[0].GetAtMs())).Abs() > time.Hour || events[0].GetSeverity() != "critical" {
		t.Errorf("events: %v, %v", events, err)
	}
	items, err := d.Items(ctx, r.target())
	if err != nil || len(items) != 2 || items[1].GetModel() != "Server 7" || items[1].GetSerial() != "SN7" || items[1].GetVendor() != "Acme" {
		t.Errorf("items: %v, %v", items, err)
	}
	facts, err := d.Identify(ctx, r.target())
	if err != nil || facts.GetSystemUuid() != "4c4c4544-0035-4d10-8032-b4c04f4a3332" || facts.GetSerial() != "SN7" {
		t.Errorf("identity: %v, %v", facts, err)
	}
	if err := d.SendNMI(ctx, r.target(), drivertest.NewGrant(time.Minute)); err != nil {
		t.Error(err)
	}
	for limit := time.Now().Add(30 * time.Second); r.NMIs() != 1; <-time.After(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d NMIs", r.NMIs())
		}
	}
}

// A BMC without suite 17 is asked with 3, and the error of the default says so.
func TestRMCPSuites(t *testing.T) {
	r := startRMCP(t, 3)
	target := r.target()
	if _, err := driver(t, "").PowerState(timeout(t, 20*time.Second), target); err != nil {
		t.Errorf("suite 3: %v", err)
	}
	target.Info["ipmi_cipher_suite"] = 17
	_, err := driver(t, "").PowerState(timeout(t, 20*time.Second), target)
	wants(t, err, errs.Invalid, "ipmi_cipher_suite")
}

// A BMC without serial over LAN says so.
func TestRMCPNoConsole(t *testing.T) {
	r := startRMCP(t)
	err := driver(t, "").ReadConsole(timeout(t, time.Minute), r.target(), drivertest.NewGrant(time.Minute), func() { t.Error("opened") }, io.Discard)
	wants(t, err, errs.Unsupported, "")
}
