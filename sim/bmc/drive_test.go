package bmc_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/sim/bmc"
)

// player is a machine with a CD drive that cannot read everything.
type player struct {
	mu   sync.Mutex
	told []string // guarded by mu
	in   string   // guarded by mu
	jam  bool     // guarded by mu; the drive does not open
}

func (p *player) PowerOn(api.BootDevice) {}
func (p *player) PowerOff()              {}
func (p *player) SoftOff()               {}

func (p *player) InsertMedia(_ context.Context, image string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, "insert "+image)
	if image == "http://h/bad.iso" {
		return errors.New("scratched")
	}
	p.in = image
	return nil
}

func (p *player) EjectMedia() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, "eject")
	if p.jam {
		return errors.New("jammed")
	}
	p.in = ""
	return nil
}

// A machine with a drive is told what the BMC puts in and takes out, before the
// BMC says that it has. What it refuses did not happen.
func TestDrive(t *testing.T) {
	p := &player{}
	b := start(t, bmc.Config{Machine: p})
	c := newClient(t, b)
	c.basic = true
	const slots = "/redfish/v1/Managers/BMC/VirtualMedia/"
	for _, step := range []struct {
		slot, action, body string
		jam                bool
		status             int
		image              string // in the slot for CDs, then
	}{
		{"Cd", "InsertMedia", `{"Image":"http://h/bad.iso"}`, false, 500, ""},
		{"Cd", "InsertMedia", `{"Image":"http://h/a.iso"}`, false, 204, "http://h/a.iso"},
		{"Cd", "InsertMedia", `{"Image":"http://h/b.iso"}`, false, 400, "http://h/a.iso"},
		{"Usb", "InsertMedia", `{"Image":"http://h/u.img"}`, false, 204, "http://h/a.iso"},
		{"Usb", "EjectMedia", `{}`, false, 204, "http://h/a.iso"},
		{"Cd", "EjectMedia", `{}`, true, 500, "http://h/a.iso"},
		{"Cd", "EjectMedia", `{}`, false, 204, ""},
	} {
		p.mu.Lock()
		p.jam = step.jam
		p.mu.Unlock()
		a, err := c.try("POST", slots+step.slot+"/Actions/VirtualMedia."+step.action, step.body)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != step.status || b.Image() != step.image {
			t.Errorf("%s of %s %s: status %d, then %q", step.action, step.slot, step.body, a.status, b.Image())
		}
	}
	want := []string{"insert http://h/bad.iso", "insert http://h/a.iso", "eject", "eject"}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.told, want) || p.in != "" {
		t.Errorf("the drive was told %q and holds %q", p.told, p.in)
	}
}
