package redfish_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/bmc"
)

// memory is drivers.Trust of a test.
type memory struct {
	mu    sync.Mutex
	known map[string]string
	err   error
}

func (m *memory) Known(address string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[address]
}

func (m *memory) First(_ context.Context, address, fingerprint string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.known[address] = fingerprint
	}
	return m.err
}

func print(t *testing.T, cert string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(cert))
	if block == nil {
		t.Fatal("no PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// trusting is a target that trusts by one way only.
func trusting(b *bmc.BMC, trust drivers.Trust, set ...string) drivers.Target {
	info := drivers.Info(b.Info())
	delete(info, "redfish_verify_ca")
	for i := 0; i < len(set); i += 2 {
		info[set[i]] = set[i+1]
	}
	return drivers.Target{NodeID: "n1", Driver: "redfish", Info: info, Trust: trust}
}

func TestPin(t *testing.T) {
	b := start(t, bmc.Config{})
	right := print(t, b.CertPEM())
	d := driver(t)
	spelled := strings.ToUpper(right[:9]) + strings.ToUpper(right[9:])
	for _, pin := range []string{right, spelled} {
		if _, err := d.PowerState(timeout(t, 5*time.Second), trusting(b, nil, "redfish_tls_pin", pin)); err != nil {
			t.Errorf("%s: %v", pin, err)
		}
	}
	d.Close(t.Context()) // else the session of the other trust is logged out below
	requests := b.Stats().Requests
	wrong := "sha256:" + strings.Repeat("0", 64)
	for what, call := range map[string]func(drivers.Target) error{
		"read": func(x drivers.Target) error { _, err := d.PowerState(timeout(t, 5*time.Second), x); return err },
		"change": func(x drivers.Target) error {
			return d.SetPower(timeout(t, 5*time.Second), x, grant(), api.PowerAction_POWER_ACTION_ON)
		},
	} {
		err := call(trusting(b, nil, "redfish_tls_pin", wrong))
		var changed *drivers.CertificateError
		if !errors.As(err, &changed) || errs.KindOf(err) != errs.Denied || changed.Want != wrong || changed.Seen != right ||
			!strings.Contains(err.Error(), "redfish_tls_pin="+right) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := b.Stats(); s.Requests != requests || s.Changes != 0 {
		t.Errorf("something was sent: %+v", s)
	}
}

func TestFirstUse(t *testing.T) {
	b := start(t, bmc.Config{})
	seen := print(t, b.CertPEM())
	m := &memory{known: map[string]string{}, err: errs.New(errs.NoQuorum, "no leader")}
	d := driver(t)
	x := trusting(b, m, "redfish_tls_trust", "first-use")
	read := func() error { _, err := d.PowerState(timeout(t, 5*time.Second), x); return err }
	// Nothing is sent before the certificate is on record.
	if err := read(); errs.KindOf(err) != errs.Unreachable || !strings.Contains(err.Error(), "no leader") || b.Stats().Requests != 0 {
		t.Errorf("%v, %+v", err, b.Stats())
	}
	m.err = nil
	if err := read(); err != nil || m.Known(b.Addr()) != seen {
		t.Fatalf("%v, on record is %v, want %s", err, m.known, seen)
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	// The certificate changes: nothing is sent, both are named, and how to
	// accept the new one.
	d.Close(t.Context())
	old := "sha256:" + strings.Repeat("1", 64)
	m.known[b.Addr()] = old
	requests := b.Stats().Requests
	err := read()
	for _, text := range []string{old, seen, "accept-certificate n1 --fingerprint " + seen} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("the error %v does not have %q", err, text)
		}
	}
	if b.Stats().Requests != requests {
		t.Error("something was sent")
	}
	if err := d.SetPower(timeout(t, 5*time.Second), x, grant(), api.PowerAction_POWER_ACTION_ON); errs.KindOf(err) != errs.Denied || b.Stats().Changes != 0 {
		t.Errorf("a change: %v", err)
	}
	// Without somebody who remembers nothing is trusted.
	if _, err := d.PowerState(timeout(t, 5*time.Second), trusting(b, nil, "redfish_tls_trust", "first-use")); errs.KindOf(err) != errs.Unsupported {
		t.Errorf("nobody remembers: %v", err)
	}
}

// A certificate that cannot be verified is named, with what would trust it.
func TestUntrustedNamesTheFingerprint(t *testing.T) {
	b := start(t, bmc.Config{})
	other, err := bmc.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, verify := range []string{"true", other.PEM} {
		_, err := driver(t).PowerState(timeout(t, 5*time.Second), trusting(b, nil, "redfish_verify_ca", verify))
		for _, text := range []string{"redfish_verify_ca", "redfish_tls_pin=" + print(t, b.CertPEM())} {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("the error %v does not have %q", err, text)
			}
		}
	}
}

func TestTrustSettings(t *testing.T) {
	b := start(t, bmc.Config{})
	pin := "sha256:" + strings.Repeat("a", 64)
	for _, set := range [][]string{
		{"redfish_tls_pin", "abc"}, {"redfish_tls_pin", "sha1:" + strings.Repeat("a", 40)}, {"redfish_tls_pin", "sha256:" + strings.Repeat("g", 64)},
		{"redfish_tls_trust", "always"}, {"redfish_tls_trust", "first-use", "redfish_tls_pin", pin}, {"redfish_tls_pin", pin, "redfish_verify_ca", "true"},
	} {
		if err := driver(t).Validate(trusting(b, nil, set...).Info); errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) == "" {
			t.Errorf("%v: %v", set, err)
		}
	}
}
