//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/agent/kmod"
)

// companions are modules without a modalias that another one needs to be of
// use: the kernel would ask modprobe for them, which is not here.
var companions = map[string][]string{
	"ipmi_si":   {"ipmi_devintf"},
	"ipmi_ssif": {"ipmi_devintf"},
	"mlx4_core": {"mlx4_en"},
}

// modules loads what the devices of the machine ask for, at the start and
// whenever new devices appear.
type modules struct {
	log *slog.Logger
	dir string // /lib/modules/VERSION
	idx *kmod.Index

	loading sync.Mutex      // held while modules are loaded
	done    map[string]bool // guarded by loading; files that were tried
	aliases map[string]bool // guarded by loading; that were looked up

	first   chan struct{} // closed when the devices of the start are served
	changed atomic.Int64  // uptime at which a disk or NIC appeared last
}

// startModules loads the modules of NICs and goes on with all others beside.
// A ramdisk without modules is fine: the kernel then has them built in.
func startModules(log *slog.Logger) (*modules, error) {
	m := &modules{log: log, done: map[string]bool{}, aliases: map[string]bool{}, first: make(chan struct{})}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	m.dir = filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	idx, err := kmod.Load(os.DirFS(m.dir))
	if errors.Is(err, os.ErrNotExist) {
		log.Warn("the ramdisk has no modules for this kernel", "dir", m.dir)
		close(m.first)
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.idx = idx
	// The socket is open before the first look, so that nothing is missed.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	}
	if err != nil {
		return nil, fmt.Errorf("listen for devices: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	go m.coldplug()
	go m.follow(fd)
	return m, nil
}

// coldplug serves the devices that are there. Loading a module makes new
// devices appear (a bus, then what is on it), so it looks until nothing is new.
func (m *modules) coldplug() {
	defer close(m.first)
	began := uptime()
	polite := false // on a machine with few cores, enrolment goes first
	for range 20 {
		fresh := m.pending()
		if len(fresh) == 0 {
			break
		}
		// NICs first, and then look again: what they need is on the way to the
		// first answer of the cluster, a disk is not.
		if i := slices.IndexFunc(fresh, func(a string) bool { return !isNetwork(a) }); i > 0 {
			fresh = fresh[:i]
		} else if i == 0 && !polite {
			// The thread is not given back: it ends with this goroutine.
			runtime.LockOSThread()
			polite = unix.Setpriority(unix.PRIO_PROCESS, 0, 15) == nil
		}
		m.serve(fresh)
	}
	m.loading.Lock()
	n := len(m.done)
	m.loading.Unlock()
	m.log.Info("modules are loaded", "count", n, "seconds", (uptime() - began).Round(time.Millisecond).Seconds())
}

// pending are the modaliases that no module was looked up for, NICs first.
func (m *modules) pending() []string {
	var out []string
	files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias")
	m.loading.Lock()
	defer m.loading.Unlock()
	for _, f := range files {
		b, err := os.ReadFile(f)
		a := strings.TrimSpace(string(b))
		if err == nil && a != "" && !m.aliases[a] && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		switch na, nb := isNetwork(a), isNetwork(b); {
		case na && !nb:
			return -1
		case nb && !na:
			return 1
		}
		return 0
	})
	return out
}

// isNetwork tells PCI devices of the network class and virtio NICs.
func isNetwork(alias string) bool {
	return strings.HasPrefix(alias, "pci:") && strings.Contains(alias, "bc02sc") || strings.HasPrefix(alias, "virtio:d00000001")
}

// serve loads the modules for these modaliases.
func (m *modules) serve(aliases []string) {
	m.loading.Lock()
	defer m.loading.Unlock()
	for _, a := range aliases {
		if m.aliases[a] {
			continue
		}
		m.aliases[a] = true
		for _, name := range m.idx.Match(a) {
			m.loadLocked(name)
		}
	}
}

// need loads a module that no device asks for.
func (m *modules) need(name string) {
	if m.idx == nil {
		return
	}
	m.loading.Lock()
	defer m.loading.Unlock()
	m.loadLocked(name)
}

func (m *modules) loadLocked(name string) {
	for _, file := range m.idx.Order(append([]string{name}, companions[name]...)...) {
		if m.done[file] {
			continue
		}
		m.done[file] = true
		if err := insert(filepath.Join(m.dir, file)); err != nil {
			m.log.Warn("module is not loaded", "module", kmod.Name(file), "err", err)
		}
	}
}

// insert gives one module to the kernel; loaded already is fine, and so is a
// driver that finds no device to its liking.
func insert(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if strings.HasSuffix(path, ".zst") {
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return err
		}
		defer z.Close()
		var b bytes.Buffer
		if _, err := io.Copy(&b, z); err != nil {
			return err
		}
		err = unix.InitModule(b.Bytes(), "")
		return harmless(err)
	}
	return harmless(unix.FinitModule(int(f.Fd()), "", 0))
}

func harmless(err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// follow serves devices as they appear.
func (m *modules) follow(fd int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOBUFS) { // events were lost: look at everything
			m.serve(m.pending())
			continue
		}
		if err != nil {
			m.log.Error("new devices are no longer noticed", "err", err)
			return
		}
		alias, sub := parseUevent(buf[:n])
		if sub == "block" || sub == "net" || sub == "ipmi" {
			m.changed.Store(int64(uptime()))
		}
		if alias != "" {
			m.serve([]string{alias})
		}
	}
}

// parseUevent takes the modalias and the subsystem out of an "add" event.
func parseUevent(b []byte) (alias, subsystem string) {
	if !bytes.HasPrefix(b, []byte("add@")) {
		return "", ""
	}
	for f := range bytes.SplitSeq(b, []byte{0}) {
		k, v, _ := strings.Cut(string(f), "=")
		switch k {
		case "MODALIAS":
			alias = v
		case "SUBSYSTEM":
			subsystem = v
		}
	}
	return alias, subsystem
}

const (
	quiet     = 300 * time.Millisecond // without a new device: all are there
	settleMax = 30 * time.Second
)

// settle returns when the modules of the start are loaded and no disk or NIC
// has appeared for a while: drivers go on looking after they are loaded.
func (m *modules) settle(ctx context.Context) error {
	limit := time.NewTimer(settleMax)
	defer limit.Stop()
	select {
	case <-m.first:
	case <-limit.C:
		m.log.Warn("modules are still loading")
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		rest := quiet - (uptime() - time.Duration(m.changed.Load()))
		if rest <= 0 {
			return nil
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-limit.C:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
