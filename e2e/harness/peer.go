package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Peer is one `ironring serve` on a host of its own.
type Peer struct {
	Index  int    // from 1
	ID     string // member id: "p1" ...
	Dir    string // its data directory
	Log    string
	socket string

	lab  *Lab
	conf string
	proc *Proc
}

// Cluster is three peers that know each other, with a ramdisk to boot.
type Cluster struct {
	Peers []*Peer
	// Abort, if set, is asked while something is waited for; an error ends the wait.
	Abort func() error
	lab   *Lab
	dir   string
}

// Binary is the program under test.
func (l *Lab) Binary() string { return filepath.Join(l.Root, "bin", "ironring") }

// Ramdisk builds the ramdisk of the product for the lab's kernel.
func (l *Lab) Ramdisk(ctx context.Context, k *Kernel) (string, error) {
	dir := filepath.Join(l.Dir, "ramdisk")
	l.Defer(func() error { return os.RemoveAll(dir) })
	out, err := l.Output(ctx, Cmd{Name: "ironring ramdisk build", Dir: l.Root, Args: []string{
		l.Binary(), "ramdisk", "build", "--kernel", k.Vmlinuz, "--modules", k.Modules, "--out", dir,
	}})
	if err != nil {
		return "", err
	}
	for _, f := range []string{"vmlinuz", "initramfs.img"} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil {
			return "", err
		}
		l.Logf("ramdisk: %s %.1f MiB", f, float64(st.Size())/mib)
	}
	_ = os.WriteFile(filepath.Join(l.Dir, "ramdisk-build.log"), []byte(out), 0o644)
	return dir, nil
}

// ClusterSpec is a cluster to start.
type ClusterSpec struct {
	Name    string // of the directory of its files in that of the run
	Ramdisk string // directory of the ramdisk that machines boot
	Static  bool   // a site without DHCP: peers do not serve it
}

// StartCluster starts three peers that boot machines with a ramdisk: the first
// founds the cluster, the others join by token. One cluster may run at a time:
// there are three hosts.
func (l *Lab) StartCluster(ctx context.Context, spec ClusterSpec) (*Cluster, error) {
	c := &Cluster{lab: l, dir: filepath.Join(l.Dir, spec.Name)}
	for i := 1; i <= Peers; i++ {
		p, err := l.newPeer(i, c.dir, spec)
		if err != nil {
			return nil, err
		}
		c.Peers = append(c.Peers, p)
	}
	if err := c.form(ctx); err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// form makes one cluster of peers that were never started.
func (c *Cluster) form(ctx context.Context) error {
	first := c.Peers[0]
	if err := first.start("--init"); err != nil {
		return err
	}
	if err := first.ready(ctx); err != nil {
		return err
	}
	for _, p := range c.Peers[1:] {
		token, err := c.joinToken(ctx, p)
		if err != nil {
			return err
		}
		if err := p.start("--join-file", token); err != nil {
			return err
		}
		if err := p.ready(ctx); err != nil {
			return err
		}
	}
	return c.WaitHealthy(ctx)
}

func (c *Cluster) joinToken(ctx context.Context, p *Peer) (string, error) {
	var reply struct {
		Token string `json:"token"`
	}
	if err := c.CLI(ctx, &reply, "cluster", "token"); err != nil {
		return "", err
	}
	file := filepath.Join(filepath.Dir(p.conf), p.ID+"-token")
	return file, os.WriteFile(file, []byte(reply.Token+"\n"), 0o600)
}

func (l *Lab) newPeer(i int, parent string, spec ClusterSpec) (*Peer, error) {
	p := &Peer{Index: i, ID: "p" + strconv.Itoa(i), lab: l}
	dir := filepath.Join(parent, p.ID)
	p.Dir, p.conf, p.Log = filepath.Join(dir, "data"), filepath.Join(dir, "ironring.yaml"), filepath.Join(dir, "ironring.log")
	sock, err := l.socketDir()
	if err != nil {
		return nil, err
	}
	p.socket = filepath.Join(sock, p.ID+".sock")
	dhcp := "full"
	if spec.Static {
		dhcp = "off"
	}
	conf := strings.NewReplacer(
		"DATA", p.Dir, "ID", p.ID, "SOCKET", p.socket, "RAMDISK", spec.Ramdisk,
		"MGMT", l.mgmtAddr(i), "AGENT", l.agentAddr(i), "PROV", ProvAddr(i), "MODE", dhcp,
	).Replace(`data_dir: DATA
id: ID
socket: SOCKET
listen:
  cluster: MGMT
  gossip: MGMT
  api: MGMT
  agent: AGENT
  boot: PROV
  tftp: PROV
drivers: [ipmi, redfish]
boot:
  dhcp: MODE
  ramdisk_dir: RAMDISK
  interface: prov
  kernel_args: console=ttyS0
log:
  level: debug
`)
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.conf, []byte(conf), 0o644)
}

func (p *Peer) start(args ...string) error {
	proc, err := p.lab.Start(Cmd{
		Name: p.ID, NS: p.lab.NS(p.ID), Log: p.Log,
		Args: append([]string{p.lab.Binary(), "serve", "--config", p.conf}, args...),
	})
	if err != nil {
		return err
	}
	p.proc = proc
	p.lab.Logf("%s: started, pid %d", p.ID, proc.Pid)
	return nil
}

// Start starts a peer that is a member already.
func (p *Peer) Start(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	return p.ready(ctx)
}

// ready waits until the peer answers, knows a leader and may work.
func (p *Peer) ready(ctx context.Context) error {
	return Poll(ctx, p.ID+" with a leader and a lease", p.lab.Limit(60*time.Second), func() (bool, error) {
		if !p.Alive() {
			return false, Final(fmt.Errorf("%s ended: %w, see %s", p.ID, p.proc.Err(), p.Log))
		}
		var st Status
		if err := p.CLI(ctx, &st, "cluster", "status"); err != nil {
			return false, err
		}
		return st.Leader != "" && st.live(p.ID), nil
	})
}

// Alive tells whether the process of the peer runs.
func (p *Peer) Alive() bool { return p.proc != nil && p.proc.Running() }

// Kill ends the peer as a power cut of its host would: every process on the
// host, a guard of the daemon included, at once.
func (p *Peer) Kill() {
	p.lab.Logf("%s: kill -9", p.ID)
	killPids(p.lab.Pids(p.ID))
	<-p.proc.Done()
}

// Stop asks the peer to end and reports an error when it does not.
func (p *Peer) Stop() error {
	if p.Alive() && !p.proc.Stop(p.lab.Limit(20*time.Second)) {
		return fmt.Errorf("%s did not end within its time after SIGTERM", p.ID)
	}
	return nil
}

// Unplug takes the peer off the provisioning network, or puts it back: machines
// find only the others then. Cluster and BMCs are on networks of their own.
func (p *Peer) Unplug(ctx context.Context, out bool) error {
	state := "up"
	if out {
		state = "down"
	}
	p.lab.Logf("%s: provisioning network %s", p.ID, state)
	return p.lab.ip(ctx, "net", "link set "+p.ID+"-prov "+state)
}

// CLI runs the program on the host of a peer that lives, and decodes the JSON
// that it prints into out.
func (c *Cluster) CLI(ctx context.Context, out any, args ...string) error {
	for _, p := range c.Peers {
		if p.Alive() {
			return p.CLI(ctx, out, args...)
		}
	}
	return errors.New("no peer lives")
}

// Peer is the peer with a member id; nil if there is none.
func (c *Cluster) Peer(id string) *Peer {
	for _, p := range c.Peers {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// WaitHealthy waits until all peers are members with a vote and a lease: only
// then may one of them be lost.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	return Poll(ctx, "healthy cluster", c.lab.Limit(60*time.Second), func() (bool, error) {
		var st Status
		if err := c.CLI(ctx, &st, "cluster", "status"); err != nil {
			return false, err
		}
		if st.Health != "HEALTHY" || len(st.Peers) != len(c.Peers) {
			return false, fmt.Errorf("%s: %s", st.Health, strings.Join(st.Problems, "; "))
		}
		for _, p := range st.Peers {
			if !p.Voter {
				return false, fmt.Errorf("%s has no vote yet", p.Member.ID)
			}
		}
		return true, nil
	})
}

// Kill ends all peers that run, at once.
func (c *Cluster) Kill() {
	for _, p := range c.Peers {
		if p.Alive() {
			p.Kill()
		}
	}
}

// Stop asks all peers to end, one after the other.
func (c *Cluster) Stop() error {
	var all []error
	for _, p := range c.Peers {
		all = append(all, p.Stop())
	}
	return errors.Join(all...)
}
