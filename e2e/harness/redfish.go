package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/sim/bmc"
)

// Redfish is our simulated BMC in front of a VM, on the BMC network. It reads
// media as a BMC does: by itself, over the network, in full, when they are
// inserted.
type Redfish struct {
	*bmc.BMC
	CAFile string // its certificate
	VM     *VM

	lab    *Lab
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

const redfishPort = 8443

// maxMedium bounds what a BMC reads; mediumLimit how long that may take.
const (
	maxMedium   = 512 * mib
	mediumLimit = time.Minute
)

// NewRedfish starts the BMC of a machine with VMSpec.Media. The BMC network is
// routed to the addresses where peers serve media, and nowhere else.
func (l *Lab) NewRedfish(ctx context.Context, vm *VM) (*Redfish, error) {
	for i := 1; i <= Peers; i++ {
		if err := l.ip(ctx, "bmc", "route replace "+ProvAddr(i)+"/32 via "+PeerBMCAddr(i)); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(vm.dir, "redfish.log"))
	if err != nil {
		return nil, err
	}
	r := &Redfish{VM: vm, lab: l, CAFile: filepath.Join(vm.dir, "bmc-ca.pem")}
	addr := BMCAddr(vm.Index)
	err = inNamespace(l.NS("bmc"), func() (err error) {
		r.BMC, err = bmc.New(bmc.Config{
			Listen: net.JoinHostPort(addr, strconv.Itoa(redfishPort)), Password: "e2e-" + l.Prefix,
			UUID: vm.UUID, Serial: vm.Serial, MAC: fmt.Sprintf("52:54:00:b0:00:%02x", vm.Index), Address: addr,
			Machine: r, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	vm.mu.Lock()
	vm.onOff = r.PoweredOff
	vm.mu.Unlock()
	run, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.wg.Go(func() {
		if err := r.Run(run); err != nil {
			l.Logf("BMC of %s: %v", vm.Name, err)
		}
		_ = log.Close()
	})
	l.Defer(func() error { r.Close(); return nil })
	return r, os.WriteFile(r.CAFile, []byte(r.CertPEM()), 0o644)
}

// Close ends the BMC and empties the drive. The machine keeps its power.
func (r *Redfish) Close() {
	r.cancel()
	r.wg.Wait()
	_ = r.VM.Eject() // the file is in the run's directory
}

// PowerOn implements bmc.Machine.
func (r *Redfish) PowerOn(boot api.BootDevice) {
	first := BootNone
	switch boot {
	case api.BootDevice_BOOT_DEVICE_PXE:
		first = BootPXE
	case api.BootDevice_BOOT_DEVICE_CDROM:
		first = BootCD
	}
	r.VM.SetBoot(first)
	if err := r.VM.PowerOn("BMC"); err != nil {
		r.lab.Logf("%s: %v", r.VM.Name, err)
		r.PoweredOff()
	}
}

// PowerOff implements bmc.Machine.
func (r *Redfish) PowerOff() { r.VM.PowerOff("BMC") }

// SoftOff implements bmc.Machine.
func (r *Redfish) SoftOff() {
	if err := r.VM.Soft(); err != nil {
		r.lab.Logf("%s: %v", r.VM.Name, err)
	}
}

// InsertMedia implements bmc.Drive.
func (r *Redfish) InsertMedia(ctx context.Context, image string) error {
	file, err := r.fetch(ctx, image)
	if err != nil {
		r.lab.Logf("BMC of %s: %v", r.VM.Name, err)
		return err
	}
	if err := r.VM.Insert(file); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}

// EjectMedia implements bmc.Drive.
func (r *Redfish) EjectMedia() error { return r.VM.Eject() }

// fetch reads a medium from the BMC network.
func (r *Redfish) fetch(ctx context.Context, image string) (file string, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.lab.Limit(mediumLimit))
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = inNamespace(r.lab.NS("bmc"), func() error {
			// One address and no name: dialing stays on this thread.
			to, err := net.ResolveTCPAddr(network, addr)
			if err != nil {
				return err
			}
			conn, err = net.DialTCP(network, &net.TCPAddr{IP: net.ParseIP(BMCAddr(r.VM.Index))}, to)
			return err
		})
		return conn, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, image, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("medium: %s", resp.Status)
	}
	f, err := os.CreateTemp(r.VM.dir, "cd-*.iso")
	if err != nil {
		return "", err
	}
	n, err := io.Copy(f, io.LimitReader(resp.Body, maxMedium))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	r.lab.Logf("BMC of %s: medium of %.1f MiB read", r.VM.Name, float64(n)/mib)
	return f.Name(), nil
}
