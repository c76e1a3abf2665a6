package bmc

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/google/uuid"

	"github.com/ironring/ironring/internal/errs"
)

// RMCPConfig describes the IPMI face of a BMC.
type RMCPConfig struct {
	Listen string // default: the host of the BMC, any port
	Suites []int  // cipher suites on offer, default 17
}

// RMCP is the IPMI face of a BMC: the same machine, power, boot override, LED
// and log, by RMCP+ (IPMI 2.0 over LAN). go-ipmi's server speaks the protocol;
// what it has no commands for (event log, NMI, state of the LED, sensor
// readings) is added here.
type RMCP struct {
	b     *BMC
	conn  *udp.Conn
	local net.Addr
	srv   *server.Server
	suite int
}

// NewRMCP makes the IPMI face of the BMC; it answers once Run is called.
func (b *BMC) NewRMCP(cfg RMCPConfig) (*RMCP, error) {
	if cfg.Listen == "" {
		cfg.Listen = net.JoinHostPort(b.host(), "0")
	}
	if len(cfg.Suites) == 0 {
		cfg.Suites = []int{17}
	}
	var ids []types.CipherSuiteID
	for _, n := range cfg.Suites {
		id := types.CipherSuiteID(n)
		if !bmc.SupportedCipherSuite(id) {
			return nil, errs.New(errs.Unsupported, "simulated bmc: cipher suite %d", n)
		}
		ids = append(ids, id)
	}
	addr, err := net.ResolveUDPAddr("udp", cfg.Listen)
	if err != nil {
		return nil, errs.New(errs.Invalid, "simulated bmc: %w", err)
	}
	sock, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, errs.New(errs.Invalid, "simulated bmc: %w", err)
	}
	state := bmc.New(bmc.DeviceInfo{
		DeviceID: 0x20, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 0x20, AdditionalDeviceSupport: 0x8f,
	}, guid(b.cfg.UUID), &wires{b: b}, bmc.WithV15Disabled())
	state.SetCipherSuites(ids)
	user, err := state.Users.Add(2, b.cfg.Username)
	if err != nil {
		sock.Close()
		return nil, errs.New(errs.Invalid, "simulated bmc: %w", err)
	}
	user.SetPassword([]byte(b.pass()))
	user.Enabled = true
	user.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true}
	reg := handlers.NewRegistry()
	handlers.RegisterAllHandlers(reg)
	b.rmcpCommands(reg)
	r := &RMCP{b: b, conn: udp.Wrap(sock, udp.WithReadTimeout(200*time.Millisecond)), local: sock.LocalAddr(), suite: cfg.Suites[0]}
	r.srv = server.NewServer(state, r.conn, server.WithHandlerRegistry(reg))
	return r, nil
}

// host is where the BMC listens.
func (b *BMC) host() string {
	host, _, err := net.SplitHostPort(b.Addr())
	if err != nil { // it is that of a listener
		return "127.0.0.1"
	}
	return host
}

// guid is the UUID in the bytes of SMBIOS, as most BMCs give it.
func guid(text string) [16]byte {
	u, err := uuid.Parse(text)
	if err != nil {
		return [16]byte{}
	}
	raw := [16]byte(u)
	raw[0], raw[1], raw[2], raw[3] = raw[3], raw[2], raw[1], raw[0]
	raw[4], raw[5], raw[6], raw[7] = raw[5], raw[4], raw[7], raw[6]
	return raw
}

// Info is driver_info for the ipmi driver.
func (r *RMCP) Info() map[string]any {
	host, port, _ := net.SplitHostPort(r.local.String()) // of a socket
	return map[string]any{
		"ipmi_address": host, "ipmi_port": port, "ipmi_username": r.b.cfg.Username, "ipmi_password": r.b.pass(), "ipmi_cipher_suite": r.suite,
	}
}

// Run answers until ctx ends.
func (r *RMCP) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		r.srv.Close()
	})
	err := r.srv.Serve(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	wg.Wait()
	return err
}

// wires is the hardware that go-ipmi's server sees.
type wires struct {
	b *BMC
}

func (w *wires) Chassis() hal.ChassisHAL { return w }
func (w *wires) Sensors() hal.SensorHAL  { return nil }
func (w *wires) Storage() hal.StorageHAL { return w }
func (w *wires) Network() hal.NetworkHAL { return w }
func (w *wires) GPIO() hal.GPIOHAL       { return nil }
func (w *wires) I2C() hal.I2CHAL         { return nil }
func (w *wires) Console() hal.ConsoleHAL { return nil }
func (w *wires) Close() error            { return nil }

func (w *wires) PowerState(context.Context) (bool, error) { return w.b.running(), nil }

// reset goes the way of Redfish's resets, on the trace too.
func (w *wires) reset(kind string) error {
	e := &Event{Received: time.Now(), Actor: w.b.cfg.Username + "@rmcp+", What: "power", Arg: kind}
	w.b.record(e)
	if !w.b.reset(kind, e) {
		return hal.ErrNotSupported
	}
	return nil
}

func (w *wires) SetPower(_ context.Context, on bool) error {
	if on {
		return w.reset("On")
	}
	return w.reset("ForceOff")
}

func (w *wires) PowerCycle(context.Context) error { return w.reset("PowerCycle") }
func (w *wires) ColdReset(context.Context) error  { return w.reset("ForceRestart") }

// WarmReset is what the server makes of "soft shutdown".
func (w *wires) WarmReset(context.Context) error { return w.reset("GracefulShutdown") }

func (w *wires) Identify(_ context.Context, seconds uint8) error {
	led := "Lit"
	if seconds == 0 {
		led = "Off"
	}
	w.change("led", led, func() { w.b.hw.led = led })
	return nil
}

// change notes and carries out what is not a reset.
func (w *wires) change(what, arg string, do func()) {
	e := &Event{Received: time.Now(), Actor: w.b.cfg.Username + "@rmcp+", What: what, Arg: arg}
	w.b.record(e)
	w.b.note(e, func(e *Event) {
		do()
		w.b.etag++
		e.Effective = time.Now()
	})
}

func (w *wires) IntrusionState(context.Context) (bool, error) { return false, hal.ErrNotSupported }

var selectors = map[types.BootDeviceSelector]string{0: "None", 1: "Pxe", 2: "Hdd", 5: "Cd"}

func (w *wires) SetBootFlags(_ context.Context, f *types.BootOptionParam_BootFlags) error {
	target, ok := selectors[f.BootDeviceSelector]
	if !ok {
		return hal.ErrNotSupported
	}
	next := override{target: target, enabled: "Once", mode: "Legacy"}
	if f.Persist {
		next.enabled = "Continuous"
	}
	if target == "None" {
		next.enabled = "Disabled"
	}
	if f.BIOSBootType == types.BIOSBootTypeEFI {
		next.mode = "UEFI"
	}
	w.change("boot", next.String(), func() { *w.b.overrideLocked() = next })
	return nil
}

func (w *wires) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	o := w.b.overrideLocked()
	f := &types.BootOptionParam_BootFlags{BootFlagsValid: true, Persist: o.enabled == "Continuous", BIOSBootType: o.mode == "UEFI"}
	for sel, target := range selectors {
		if target == o.target && o.enabled != "Disabled" {
			f.BootDeviceSelector = sel
		}
	}
	return f, nil
}

func (w *wires) SetBootInfoAcknowledge(context.Context, *types.BootOptionParam_BootInfoAcknowledge) error {
	return nil
}

func (w *wires) GetBootInfoAcknowledge(context.Context) (*types.BootOptionParam_BootInfoAcknowledge, error) {
	return nil, hal.ErrNotSupported
}

func (w *wires) GetConfig(context.Context) (*hal.IPConfig, error) {
	cfg := &hal.IPConfig{Mask: [4]byte{255, 255, 255, 0}}
	if ip := net.ParseIP(w.b.cfg.Address).To4(); ip != nil {
		copy(cfg.IP[:], ip)
	}
	if mac, err := net.ParseMAC(w.b.cfg.MAC); err == nil {
		copy(cfg.MAC[:], mac)
	}
	return cfg, nil
}

func (w *wires) SetConfig(context.Context, *hal.IPConfig) error { return hal.ErrNotSupported }

func (w *wires) FRU() hal.FRUStore { return fruStore{w.b} }
func (w *wires) SDR() hal.SDRStore { return sdrStore{} }

// fruStore has one device: board and product of the machine.
type fruStore struct{ b *BMC }

func (s fruStore) Read(context.Context, uint8) ([]byte, error) {
	field := func(text string) []byte {
		text = text[:min(len(text), 31)]
		return append([]byte{0xc0 | byte(len(text))}, text...)
	}
	area := func(fields ...string) []byte {
		body := []byte{1, 0, 0} // version, length, language: English
		for _, f := range fields {
			body = append(body, field(f)...)
		}
		body = append(body, 0xc1)
		for len(body)%8 != 7 {
			body = append(body, 0)
		}
		body[1] = byte((len(body) + 1) / 8)
		return append(body, checksum(body))
	}
	header := []byte{1, 0, 0, 0, 1, 0, 0}
	// Manufacturer, product, part number, version, serial, asset tag, file.
	product := area(s.b.cfg.Manufacturer, s.b.cfg.Model, "PN1", "1", strings.ToUpper(s.b.cfg.Serial), "", "")
	return append(append(header, checksum(header)), product...), nil
}

func checksum(data []byte) (sum byte) {
	for _, x := range data {
		sum -= x
	}
	return sum
}

func (fruStore) Write(context.Context, uint8, []byte) error       { return hal.ErrNotSupported }
func (fruStore) Delete(context.Context, uint8) error              { return hal.ErrNotSupported }
func (fruStore) DeviceIDs(context.Context) ([]uint8, error)       { return []uint8{0}, nil }
func (sdrStore) Write(context.Context, uint16, []byte) error      { return hal.ErrNotSupported }
func (sdrStore) Delete(context.Context, uint16) error             { return hal.ErrNotSupported }
func (sdrStore) RecordIDs(context.Context) ([]uint16, error)      { return []uint16{1}, nil }
func (sdrStore) Read(_ context.Context, _ uint16) ([]byte, error) { return inletSDR(), nil }

// sdrStore has the record of one sensor.
type sdrStore struct{}

// inletSDR is a full sensor record (IPMI 2.0 table 43-1): a temperature in
// degrees Celsius, read as it is.
func inletSDR() []byte {
	name := "Inlet Temp"
	body := make([]byte, 43)
	body[0], body[2] = 0x20, 1 // owner: the BMC; sensor number 1
	body[3], body[4] = 7, 1    // entity: system board
	body[5], body[6] = 0x7f, 0x68
	body[7], body[8] = 0x01, 0x01 // temperature, by thresholds
	binary.LittleEndian.PutUint16(body[9:], 0x0a80)
	binary.LittleEndian.PutUint16(body[11:], 0x0a80)
	binary.LittleEndian.PutUint16(body[13:], 0x3030)
	body[16] = 1 // degrees C
	body[19] = 1 // M
	body[25] = 0x01
	body[26], body[27], body[28] = 23, 60, 5
	body[42] = 0xc0 | byte(len(name))
	body = append(body, name...)
	return append([]byte{1, 0, 0x51, 0x01, byte(len(body))}, body...)
}
