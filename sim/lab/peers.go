package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

// Ports of the peers of a lab: the addresses differ, the ports do not.
const (
	dhcpPort = 6067
	tftpPort = 6069
)

// peer is one `ironring serve` process.
type peer struct {
	id     string
	dir    string
	addr   netip.Addr
	socket string
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{} // closed when the process has ended
}

const peerConfig = `data_dir: %[1]s/data
id: %[2]s
socket: %[1]s/sock
drivers: [redfish, ipmi]
profile: lan
listen:
  cluster: %[3]s:7480
  gossip: %[3]s:7481
  api: %[3]s:7482
  agent: %[3]s:7483
  boot: %[3]s:7484
  tftp: %[3]s:%[4]d
  dhcp: %[3]s:%[5]d
boot:
  ipxe_dir: %[6]s
log:
  level: debug
`

func (l *lab) ipxeDir() string { return filepath.Join(l.dir, "ipxe") }

// simulated is a file that the boot services hand out. Simulated machines
// fetch it like real ones and run the agent built into the lab.
func simulated(name string) []byte { return bytes.Repeat([]byte("simulated "+name+"\n"), 4096) }

func (l *lab) writeBootPrograms() error {
	if err := os.MkdirAll(l.ipxeDir(), 0o700); err != nil {
		return err
	}
	for _, f := range []string{"snponly.efi", "undionly.kpxe", "ipxe.efi"} {
		if err := os.WriteFile(filepath.Join(l.ipxeDir(), f), simulated(f), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// publishRamdisk has machines boot a simulated ramdisk, as `ironring ramdisk
// publish` does.
func (l *lab) publishRamdisk(ctx context.Context) error {
	r := &api.Ramdisk{Arch: "x86_64", Description: "simulated"}
	for _, part := range []struct {
		name string
		kind api.Artifact_Kind
		to   *string
	}{{"vmlinuz", api.Artifact_KERNEL, &r.Kernel}, {"initramfs.img", api.Artifact_INITRAMFS, &r.Initramfs}} {
		body := simulated(part.name)
		sum := sha256.Sum256(body)
		*part.to = hex.EncodeToString(sum[:])
		head := &api.PutArtifactHead{Digest: *part.to, Size: uint64(len(body)), Kind: part.kind, Name: part.name, Arch: r.GetArch()}
		if _, err := l.client.PutArtifact(ctx, head, bytes.NewReader(body), nil); err != nil {
			return fmt.Errorf("store %s: %w", part.name, err)
		}
	}
	_, err := l.client.SetRamdisk(ctx, &api.SetRamdiskRequest{Ramdisk: r})
	return err
}

// startPeers starts the first peer with --init and the others with a token.
func (l *lab) startPeers(ctx context.Context) error {
	for i := 1; i <= l.opts.Peers; i++ {
		p := &peer{id: fmt.Sprintf("p%d", i), addr: l.net.peer(i)}
		p.dir = filepath.Join(l.dir, p.id)
		p.socket = filepath.Join(p.dir, "sock")
		if len(p.socket) > 100 {
			return fmt.Errorf("--dir: %s is too long for a unix socket: give a shorter one", l.dir)
		}
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			return err
		}
		cfg := fmt.Sprintf(peerConfig, p.dir, p.id, p.addr, tftpPort, dhcpPort, l.ipxeDir())
		if d := l.opts.BMCReadTimeout; d > 0 {
			cfg += fmt.Sprintf("bmc:\n  read_timeout: %s\n", d)
		}
		if err := os.WriteFile(filepath.Join(p.dir, "ironring.yaml"), []byte(cfg), 0o600); err != nil {
			return err
		}
		l.peers = append(l.peers, p)
	}
	first := l.peers[0]
	if err := first.start(l.opts.Binary, "", "--init"); err != nil {
		return err
	}
	var err error
	sockets := make([]string, 0, len(l.peers))
	for _, p := range l.peers {
		sockets = append(sockets, "unix:"+p.socket)
	}
	if l.client, err = client.New(client.Config{Addresses: sockets}); err != nil {
		return err
	}
	l.later(l.client.Close)
	if err := l.await(ctx, first, 1); err != nil {
		return err
	}
	for i, p := range l.peers[1:] {
		tok, err := l.client.CreateJoinToken(ctx, &api.CreateJoinTokenRequest{})
		if err != nil {
			return err
		}
		if err := p.start(l.opts.Binary, tok.GetToken()+"\n", "--join-file", "-"); err != nil {
			return err
		}
		if err := l.await(ctx, p, i+2); err != nil {
			return err
		}
	}
	l.say("%d peers form cluster %s", len(l.peers), l.clusterID(ctx))
	_, err = l.client.SetNetwork(ctx, &api.SetNetworkRequest{Network: &api.Network{
		Name: "lab", Cidr: l.net.cidr(), RangeStart: l.net.first(), RangeEnd: l.net.last(), Relays: []string{l.net.relay().String()},
	}})
	return err
}

func (l *lab) clusterID(ctx context.Context) string {
	v, err := l.client.Version(ctx, &api.VersionRequest{})
	if err != nil {
		return "?"
	}
	return v.GetClusterId()
}

// start runs the peer's process with its log in a file.
func (p *peer) start(binary, stdin string, args ...string) error {
	var err error
	if p.log, err = os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	p.cmd = exec.Command(binary, append([]string{"serve", "--config", filepath.Join(p.dir, "ironring.yaml")}, args...)...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(stdin), p.log, p.log
	// The peers end with the lab, even when it is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start peer %s: %w", p.id, err)
	}
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended stands in its log
	}()
	return nil
}

// restart starts a peer again whose process has ended.
func (p *peer) restart(binary string) error {
	_ = p.log.Close() // written by the process, not by us
	return p.start(binary, "")
}

// kill ends the process as a crash would.
func (p *peer) kill() { p.end(syscall.SIGKILL) }

// term has the process stop in order.
func (p *peer) term() { p.end(syscall.SIGTERM) }

func (p *peer) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	<-p.ended
}

// stopPeers ends all peers in an orderly way, by force after a while.
func (l *lab) stopPeers() error {
	for _, p := range l.peers {
		if p.cmd != nil && p.cmd.Process != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		}
	}
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for _, p := range l.peers {
		if p.ended == nil {
			continue
		}
		select {
		case <-p.ended:
		case <-limit.C:
			limit.Reset(0)
			p.kill()
		}
		_ = p.log.Close() // written by the process, not by us
	}
	return nil
}

// await waits until a peer answers and the cluster has so many members that
// gossip sees alive.
func (l *lab) await(ctx context.Context, p *peer, members int) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	c, err := client.New(client.Config{Socket: p.socket, Timeout: 2 * time.Second, Rounds: 1})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // nothing is under way
	for {
		st, err := c.ClusterStatus(ctx, &api.ClusterStatusRequest{})
		if err == nil {
			ready := 0
			for _, m := range st.GetPeers() {
				if m.GetAlive() && m.GetLease() == "live" && m.GetMember().GetPhase() == api.Member_READY {
					ready++
				}
			}
			if ready >= members && st.GetLeader() != "" {
				return nil
			}
			err = fmt.Errorf("%d of %d members ready, health %v", ready, members, st.GetHealth())
		}
		select {
		case <-p.ended:
			return fmt.Errorf("peer %s ended while it started:\n%s", p.id, tail(filepath.Join(p.dir, "log")))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("peer %s did not become ready: %w; its log ends:\n%s", p.id, err, tail(filepath.Join(p.dir, "log"))))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tail is the end of a log file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
