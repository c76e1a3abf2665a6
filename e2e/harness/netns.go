package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The addresses of the lab. They exist only inside its namespaces, so that
// any number of labs may use the same.
const (
	ProvCIDR   = "10.77.0.0/24" // provisioning: machines boot here
	BMCCIDR    = "10.77.1.0/24" // BMCs
	MgmtCIDR   = "10.77.2.0/24" // peers among themselves
	ImageHost  = "10.77.0.5"    // image server, on the provisioning network
	Peers      = 3
	MaxVMs     = 2
	BridgeProv = "brprov"
	ctlNet     = "10.77.9.1" // where QEMU comes from ...
	ctlBMC     = "10.77.9.2" // ... when it attaches to its BMC
	netnsMount = "/var/run/netns"
)

// ProvAddr, MgmtAddr and PeerBMCAddr are the addresses of peer i (from 1).
func ProvAddr(i int) string    { return fmt.Sprintf("10.77.0.1%d", i) }
func MgmtAddr(i int) string    { return fmt.Sprintf("10.77.2.1%d", i) }
func PeerBMCAddr(i int) string { return fmt.Sprintf("10.77.1.1%d", i) }

// BMCAddr is the address of the BMC of VM i (from 1).
func BMCAddr(i int) string { return fmt.Sprintf("10.77.1.%d", 100+i) }

// NS is the full name of a namespace: "net" (bridges and VMs), "bmc" (BMC
// simulators), "www" (image server), "p1" to "p3" (the hosts of the peers).
func (l *Lab) NS(name string) string { return l.Prefix + "-" + name }

// Plug makes the namespaces, bridges and cables of the lab.
func (l *Lab) Plug(ctx context.Context) error {
	nets := map[string]string{"brmgmt": "m", BridgeProv: "p", "brbmc": "b"}
	names := []string{"net", "bmc", "www"}
	for i := 1; i <= Peers; i++ {
		names = append(names, "p"+strconv.Itoa(i))
	}
	for _, n := range names {
		if err := l.ip(ctx, "", "netns add "+l.NS(n)); err != nil {
			return err
		}
		if err := l.ip(ctx, n, "link set lo up"); err != nil {
			return err
		}
	}
	for br := range nets {
		// Without snooping off, a bridge without a querier loses some multicast.
		if err := l.ip(ctx, "net",
			"link add "+br+" type bridge stp_state 0 forward_delay 0",
			"link set "+br+" type bridge mcast_snooping 0",
			"link set "+br+" up"); err != nil {
			return err
		}
	}
	for i := 1; i <= MaxVMs; i++ {
		tap := tapOf(i)
		if err := l.ip(ctx, "net", "tuntap add "+tap+" mode tap", "link set "+tap+" master "+BridgeProv+" up"); err != nil {
			return err
		}
	}
	for i := 1; i <= Peers; i++ {
		p := "p" + strconv.Itoa(i)
		for _, c := range []cable{{p, "mgmt", "brmgmt", MgmtAddr(i)}, {p, "prov", BridgeProv, ProvAddr(i)}, {p, "bmc", "brbmc", PeerBMCAddr(i)}} {
			if err := l.plug(ctx, c); err != nil {
				return err
			}
		}
	}
	if err := l.plug(ctx, cable{"www", "prov", BridgeProv, ImageHost}); err != nil {
		return err
	}
	if err := l.plug(ctx, cable{"bmc", "bmc", "brbmc", "10.77.1.100"}); err != nil {
		return err
	}
	for i := 1; i <= MaxVMs; i++ {
		if err := l.ip(ctx, "bmc", "addr add "+BMCAddr(i)+"/24 dev bmc"); err != nil {
			return err
		}
	}
	// The wire between a machine and its own BMC: the system interface.
	return l.ip(ctx, "net",
		"link add ctl type veth peer name ctl netns "+l.NS("bmc"),
		"addr add "+ctlNet+"/30 dev ctl", "link set ctl up",
		"-n "+l.NS("bmc")+" addr add "+ctlBMC+"/30 dev ctl", "-n "+l.NS("bmc")+" link set ctl up")
}

type cable struct{ ns, dev, bridge, addr string }

// plug connects a namespace to a bridge.
func (l *Lab) plug(ctx context.Context, c cable) error {
	port := c.ns + "-" + c.dev
	return l.ip(ctx, "net",
		"link add "+port+" type veth peer name "+c.dev+" netns "+l.NS(c.ns),
		"link set "+port+" master "+c.bridge+" up",
		"-n "+l.NS(c.ns)+" addr add "+c.addr+"/24 dev "+c.dev,
		"-n "+l.NS(c.ns)+" link set "+c.dev+" up")
}

// ip runs ip(8) once per line, inside the namespace ns unless the line names
// one itself with -n.
func (l *Lab) ip(ctx context.Context, ns string, lines ...string) error {
	for _, line := range lines {
		args := strings.Fields(line)
		if ns != "" && args[0] != "-n" {
			args = append([]string{"-n", l.NS(ns)}, args...)
		}
		if _, err := l.Output(ctx, Cmd{Name: "ip " + line, Args: append([]string{"ip"}, args...)}); err != nil {
			return err
		}
	}
	return nil
}

// Listen opens a TCP listener inside a namespace. What it accepts lives there
// too; the goroutine that serves it may be anywhere.
func (l *Lab) Listen(ns, addr string) (net.Listener, error) {
	var ln net.Listener
	err := inNamespace(l.NS(ns), func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	return ln, err
}

// inNamespace calls f on a thread that is inside a network namespace. The
// thread goes back before the runtime may use it for anything else; if it
// cannot, it ends with the goroutine, locked.
func inNamespace(name string, f func() error) error {
	errc := make(chan error, 1)
	go func() {
		errc <- func() error {
			runtime.LockOSThread()
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				runtime.UnlockOSThread()
				return err
			}
			defer home.Close()
			there, err := os.Open(filepath.Join(netnsMount, name))
			if err != nil {
				runtime.UnlockOSThread()
				return err
			}
			defer there.Close()
			if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				runtime.UnlockOSThread()
				return err
			}
			ferr := f()
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			runtime.UnlockOSThread()
			return ferr
		}()
	}()
	return <-errc
}

// Pids are the processes inside a namespace of the lab.
func (l *Lab) Pids(ns string) []int { return namespacePids(l.NS(ns)) }

func namespacePids(name string) []int {
	out, err := exec.Command("ip", "netns", "pids", name).Output()
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(out)) {
		// Never ourselves, whatever the kernel says of a thread on a visit.
		if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeNamespaces ends what runs in the namespaces of a run and deletes them.
func removeNamespaces(prefix string) error {
	entries, err := os.ReadDir(netnsMount)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix+"-") {
			continue
		}
		killPids(namespacePids(e.Name()))
		if out, err := exec.Command("ip", "netns", "del", e.Name()).CombinedOutput(); err != nil {
			return fmt.Errorf("delete namespace %s: %w: %s", e.Name(), err, out)
		}
	}
	return nil
}
