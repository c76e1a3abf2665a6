//go:build linux

package main

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The requests as the kernel reads them, on a host of little-endian order.

func TestNetlinkRequests(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"address": {addressRequest(2, netip.MustParsePrefix("192.0.2.10/24")),
			"28000000" + "1400" + "0505" + "01000000" + "00000000" + "02180000" + "02000000" + "08000200c000020a" + "08000100c000020a"},
		"default route": {routeRequest(3, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.1")),
			"2c000000" + "1800" + "0505" + "01000000" + "00000000" + "02000000" + "fe040001" + "00000000" + "08000500c0000201" + "0800040003000000"},
		"up": {upRequest(4, true, 0),
			"20000000" + "1000" + "0500" + "01000000" + "00000000" + "00000000" + "04000000" + "01000000" + "01000000"},
		"enslave": {enslaveRequest(4, 9),
			"28000000" + "1000" + "0500" + "01000000" + "00000000" + "00000000" + "04000000" + "00000000" + "00000000" + "08000a0009000000"},
		"vlan": {vlanRequest("v.7", 5, 7, mac),
			"58000000" + "1000" + "0506" + "01000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" +
				"08000300762e3700" + "0800050005000000" + "1c001200" + "09000100766c616e00000000" + "0c000200" + "0600010007000000" +
				"0a000100525400000001" + "0000"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestAcknowledged(t *testing.T) {
	answer := func(code int32) []byte {
		return message(unix.NLMSG_ERROR, 0, host.AppendUint32(nil, uint32(code)))
	}
	if err := acknowledged(answer(0)); err != nil {
		t.Error(err)
	}
	if err := acknowledged(answer(-int32(unix.EEXIST))); !errors.Is(err, unix.EEXIST) {
		t.Error(err)
	}
	for _, b := range [][]byte{nil, make([]byte, 15), message(unix.RTM_NEWLINK, 0, nil, make([]byte, 40))} {
		if acknowledged(b) == nil {
			t.Errorf("%d bytes were taken for an acknowledgement", len(b))
		}
	}
}

func TestStaticNetwork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "network.json")
	if d, err := staticNetwork(path); d != nil || err != nil {
		t.Errorf("none: %v, %v", d, err)
	}
	if err := os.WriteFile(path, []byte(`{"links":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := staticNetwork(path); d != nil || err == nil {
		t.Errorf("bad: %v, %v", d, err)
	}
}

func TestClockOffset(t *testing.T) {
	sent := time.Unix(1_000_000_000, 0)
	mark := []byte("12345678")
	answer := func(change func(b []byte)) []byte {
		b := make([]byte, 48)
		b[0], b[1] = 4<<3|4, 2
		copy(b[24:], mark)
		copy(b[40:], []byte{0xee, 0, 0, 0, 0x80, 0, 0, 0}) // 2026-07-25 12:07:12.5 UTC
		if change != nil {
			change(b)
		}
		return b
	}
	off, err := readOffset(answer(nil), mark, sent, sent.Add(2*time.Second))
	if want := time.Unix(0xee000000-2208988800, 5e8).Sub(sent.Add(time.Second)); err != nil || off != want {
		t.Errorf("%v, want %v, %v", off, want, err)
	}
	if got := ntpTime([]byte{0, 0, 0, 1, 0, 0, 0, 0}); got.Year() != 2036 {
		t.Errorf("era 1: %v", got)
	}
	for name, b := range map[string][]byte{
		"short": answer(nil)[:47], "a client's": answer(func(b []byte) { b[0] = 4<<3 | 3 }), "kiss of death": answer(func(b []byte) { b[1] = 0 }),
		"not in step": answer(func(b []byte) { b[0] |= 3 << 6 }), "another's": answer(func(b []byte) { b[24]++ }),
	} {
		if _, err := readOffset(b, mark, sent, sent); err == nil {
			t.Errorf("%s was believed", name)
		}
	}
}
