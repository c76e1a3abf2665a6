package redfish

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// pair is a connection of ours and the BMC's end of it.
func pair(t *testing.T, ctx context.Context, limit func() time.Time) (*conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := dial(ctx, ln.Addr().String(), limit)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer.(*net.TCPConn)
}

func soon(d time.Duration) func() time.Time {
	at := time.Now().Add(d)
	return func() time.Time { return at }
}

func TestUserTimeout(t *testing.T) {
	c, _ := pair(t, t.Context(), soon(time.Minute))
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		got, optErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); err != nil || optErr != nil || got != 5000 {
		t.Errorf("TCP_USER_TIMEOUT is %d ms (%v, %v)", got, err, optErr)
	}
}

// TestCut shows that the end of the context resets the connection, so that the
// kernel delivers nothing more, whoever closes first.
func TestCut(t *testing.T) {
	for name, end := range map[string]func(*conn, context.CancelFunc){
		"by context":      func(_ *conn, cancel context.CancelFunc) { cancel() },
		"closed after it": func(c *conn, cancel context.CancelFunc) { c.stop(); cancel(); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, peer := pair(t, ctx, soon(time.Minute))
			end(c, cancel)
			if err := peer.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the BMC sees %v, want a reset", err)
			}
		})
	}
}

func TestHardDeadline(t *testing.T) {
	c, _ := pair(t, t.Context(), soon(100*time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write after the deadline: %v", err)
	}
}

func TestSettings(t *testing.T) {
	good := drivers.Info{"redfish_address": "bmc7", "redfish_username": "u", "redfish_password": "p", "deploy_iso": "x"}
	with := func(key string, value any) drivers.Info {
		out := drivers.Info{key: value}
		for k, v := range good {
			if k != key {
				out[k] = v
			}
		}
		return out
	}
	for address, want := range map[string]string{
		"bmc7": "bmc7:443", "https://bmc7": "bmc7:443", "https://10.0.0.1:8443/": "10.0.0.1:8443",
		"2001:db8::1": "[2001:db8::1]:443", "https://[2001:db8::1]:444": "[2001:db8::1]:444",
	} {
		s, err := parse(with("redfish_address", address))
		if err != nil || s.hostport() != want {
			t.Errorf("%s: %v, %v", address, s, err)
		}
	}
	for _, bad := range []struct {
		key   string
		value any
	}{
		{"redfish_address", "http://bmc7"}, {"redfish_address", "https://u:p@bmc7"}, {"redfish_address", "https://bmc7/redfish"},
		{"redfish_address", "https://"}, {"redfish_address", "bm c7"}, {"redfish_address", true}, {"redfish_address", ""},
		{"redfish_system_id", "/etc/passwd"}, {"redfish_system_id", "/redfish/v1/../x"}, {"redfish_system_id", "/redfish/v1/Systems/1?x"},
		{"redfish_password", ""}, {"redfish_username", nil}, {"redfish_auth_type", "basic"}, {"redfish_verify_ca", "maybe"},
		{"redfish_verify_ca", 7.0}, {"redfish_verify_ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
		{"redfish_addres", "x"},
	} {
		if _, err := parse(with(bad.key, bad.value)); errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) == "" {
			t.Errorf("%s = %v: %v (subject %q)", bad.key, bad.value, err, errs.SubjectOf(err))
		}
	}
}
