package bmc

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Machine is what hangs behind a BMC.
type Machine interface {
	// PowerOn starts the machine; boot is the device chosen for this boot,
	// BOOT_DEVICE_NONE when the firmware chooses. It returns at once.
	PowerOn(boot api.BootDevice)
	// PowerOff cuts the power: when it returns the machine has ended.
	PowerOff()
	// SoftOff presses the power button. A guest that obeys calls PoweredOff
	// of its BMC once it has ended.
	SoftOff()
}

// Drive is a Machine that reads what is put into its virtual CD drive.
// Machines without one look at BMC.Image when they start.
type Drive interface {
	// InsertMedia reads the medium of a URL; after an error the drive is empty.
	InsertMedia(ctx context.Context, image string) error
	// EjectMedia empties the drive.
	EjectMedia() error
}

// Config describes a BMC and its machine.
type Config struct {
	Listen   string // default 127.0.0.1:0
	Username string // default "admin"
	Password string // default "password"
	// Certificate is its TLS certificate; many BMCs may share one. Default:
	// a self-signed one for the host of Listen.
	Certificate *Certificate

	// Personality names one of Personalities; "" is a BMC without quirks. What
	// is set below goes before what it says.
	Personality string

	SystemID     string // default "1"
	UUID         string // of the system, as SMBIOS gives it
	Serial       string
	Manufacturer string // default "Ironring"
	Model        string // default "Simulated"
	Firmware     string // of the BMC, default "1.0"
	MAC          string // of the BMC's NIC
	Address      string // of the BMC's NIC; default the host of Listen
	MoreSystems  int    // further systems in the collection, which do nothing

	Machine     Machine       // nil: the power state is all there is
	PowerDelay  time.Duration // from accepting a change of power to its effect
	MaxSessions int           // default 16
	SessionTTL  time.Duration // of an idle session, default 30 min
	MaxTrace    int           // events kept, default 1 000

	Logger *slog.Logger // default: none
}

func (c *Config) defaults(is Personality) {
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	set(&c.SystemID, is.SystemID)
	set(&c.Manufacturer, is.Manufacturer)
	set(&c.Model, is.Model)
	set(&c.Firmware, is.Firmware)
	if c.MaxSessions == 0 {
		c.MaxSessions = is.MaxSessions
	}
	set(&c.Listen, "127.0.0.1:0")
	set(&c.Username, "admin")
	set(&c.Password, "password")
	set(&c.SystemID, "1")
	set(&c.Manufacturer, "Ironring")
	set(&c.Model, "Simulated")
	set(&c.Firmware, "1.0")
	if c.MaxSessions == 0 {
		c.MaxSessions = 16
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = 30 * time.Minute
	}
	if c.MaxTrace == 0 {
		c.MaxTrace = 1000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// BMC is a running or not yet running simulated BMC.
type BMC struct {
	cfg     Config
	is      Personality
	ln      net.Listener
	handler http.Handler
	queue   chan change // changes of power, accepted and not yet in effect
	closed  chan struct{}
	once    sync.Once

	driving sync.Mutex // held while the Drive is told of one change

	mu       sync.Mutex
	power    string // guarded by mu; Redfish PowerState
	pending  int    // guarded by mu; changes in queue or under way
	boot     override
	hw       hardware
	password string              // guarded by mu
	etag     uint64              // guarded by mu; counts changes of the system
	sessions map[string]*session // guarded by mu; by id
	nextID   uint64              // guarded by mu
	faults   []*Fault            // guarded by mu
	trace    []*Event            // guarded by mu; the latest MaxTrace
	stats    Stats               // guarded by mu
}

// override is the boot override; guarded by BMC.mu.
type override struct {
	target  string // Redfish BootSourceOverrideTarget
	enabled string // Disabled, Once, Continuous
	mode    string // UEFI, Legacy
	uri     string // HttpBootUri
}

// New makes a BMC that listens; it answers once Run is called. Close it when
// Run is not.
func New(cfg Config) (*BMC, error) {
	is, ok := Named(cfg.Personality)
	if !ok {
		return nil, errs.New(errs.Invalid, "simulated bmc: no personality %q", cfg.Personality)
	}
	cfg.defaults(is)
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, errs.New(errs.Invalid, "simulated bmc: %w", err)
	}
	host, _, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		ln.Close()
		return nil, errs.New(errs.Internal, "simulated bmc: %w", err)
	}
	if cfg.Address == "" {
		cfg.Address = host
	}
	if cfg.Certificate == nil {
		if cfg.Certificate, err = NewCertificate(host); err != nil {
			ln.Close()
			return nil, err
		}
	}
	b := &BMC{
		cfg: cfg, is: is, ln: ln, hw: newHardware(),
		queue:    make(chan change, maxPending),
		closed:   make(chan struct{}),
		power:    powerOff,
		boot:     override{target: "None", enabled: "Disabled", mode: "UEFI"},
		sessions: map[string]*session{}, password: cfg.Password,
	}
	b.handler = b.routes()
	return b, nil
}

// Addr is the address that the BMC listens at.
func (b *BMC) Addr() string { return b.ln.Addr().String() }

// URL is what redfish_address may be set to.
func (b *BMC) URL() string { return "https://" + b.Addr() }

// CertPEM is what redfish_verify_ca may be set to.
func (b *BMC) CertPEM() string { return b.cfg.Certificate.PEM }

// Info is driver_info for the redfish driver.
func (b *BMC) Info() map[string]any {
	return map[string]any{
		"redfish_address":   b.URL(),
		"redfish_system_id": "/redfish/v1/Systems/" + b.cfg.SystemID,
		"redfish_username":  b.cfg.Username,
		"redfish_password":  b.pass(),
		"redfish_verify_ca": b.CertPEM(),
	}
}

// Close frees the listener of a BMC; Run returns.
func (b *BMC) Close() {
	b.once.Do(func() {
		close(b.closed)
		b.ln.Close() // an error would only say that it is closed
	})
}

// Run serves until ctx ends or the BMC is closed. Connections are cut then.
func (b *BMC) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           b.handler,
		TLSConfig:         b.tlsConfig(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that hang up are no news
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				b.count(func(s *Stats) { s.Connections++; s.Open++ })
			case http.StateClosed, http.StateHijacked:
				b.count(func(s *Stats) { s.Open-- })
			}
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.engine(ctx) })
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-b.closed:
		}
		cancel() // ends what handlers wait for, and the engine
		b.Close()
		srv.Close()
	})
	err := srv.ServeTLS(b.ln, "", "")
	ended := ctx.Err() != nil
	select {
	case <-b.closed:
		ended = true
	default:
	}
	cancel()
	wg.Wait()
	if ended {
		return nil
	}
	return fmt.Errorf("simulated bmc %s: %w", b.Addr(), err)
}

func (b *BMC) tlsConfig() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{b.cfg.Certificate.tls}, NextProtos: []string{"http/1.1"}}
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if f := b.fault(SilentTLS, "", ""); f != nil {
			// Until the client hangs up, or Run ends and cuts.
			_ = hello.Conn.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, hello.Conn)
			return nil, errs.New(errs.Internal, "silent by fault")
		}
		return nil, nil
	}
	return cfg
}

// ServeHTTP serves one request without a network. Changes of power wait for
// Run.
func (b *BMC) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.handler.ServeHTTP(w, r) }
