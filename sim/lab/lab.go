// Package lab runs a whole Ironring installation on one host without
// privileges: N peers as processes of their own on loopback addresses, M
// simulated machines with a BMC each, an image server. The BMCs speak Redfish;
// where ipmitool is installed the last of several speaks IPMI.
//
// Run brings it up; with Options.Once it then enrols, inspects, cleans and
// deploys every machine, kills the peer that works on one of them in the
// middle of its image, and reports what happened. Everything that it started
// has ended when Run returns.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ironring/ironring/client"
)

// Options of a lab.
type Options struct {
	Peers  int
	Nodes  int
	Once   bool   // do the whole story, then stop; else stay up
	Kill   bool   // kill the owner of a deploying node in the middle
	Term   bool   // with Kill: stop it in order, by SIGTERM
	Dir    string // "": a temporary directory, removed when all went well
	Binary string // the ironring program that peers run
	// ImageMiB and ImageRate (bytes a second for each machine) make a
	// deployment last.
	ImageMiB  int
	ImageRate int
	// BMCReadTimeout is that of the peers' configuration; 0: their default.
	BMCReadTimeout time.Duration
	Progress       io.Writer // lines for people
	// Logger is what the simulated machines log to; nil: machines.log in Dir,
	// nothing where the directory is a temporary one.
	Logger *slog.Logger
}

// Bounds of a lab.
const (
	maxPeers = 9
	maxNodes = 1000
)

// Validate names the option at fault.
func (o *Options) Validate() error {
	switch {
	case o.Peers < 1 || o.Peers > maxPeers:
		return fmt.Errorf("--peers: 1 to %d, not %d", maxPeers, o.Peers)
	case o.Nodes < 1 || o.Nodes > maxNodes:
		return fmt.Errorf("--nodes: 1 to %d, not %d", maxNodes, o.Nodes)
	case o.Once && o.Kill && o.Peers < 3:
		return fmt.Errorf("--peers: killing one leaves a quorum only with 3 or more; add --no-kill")
	case o.ImageMiB < 1 || o.ImageMiB > 1024:
		return fmt.Errorf("--image-mib: 1 to 1024, not %d", o.ImageMiB)
	case o.ImageRate < 64<<10:
		return fmt.Errorf("--image-rate: at least 65536 bytes a second, not %d", o.ImageRate)
	}
	return nil
}

// lab is a running lab.
type lab struct {
	opts   Options
	dir    string
	net    *loopback
	peers  []*peer
	images *imageServer
	nodes  []*node
	client *client.Client
	start  time.Time

	machines machines
	undo     []func() error // what down does, last first
}

// Run runs a lab. With Once the report is given also when something failed;
// without it Run stays until ctx ends and the report is nil.
func Run(ctx context.Context, opts Options) (*Report, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	temporary := opts.Dir == ""
	var err error
	if opts.Dir, err = workDir(opts.Dir); err != nil {
		return nil, err
	}
	if opts.Logger == nil {
		log, err := machinesLog(opts.Dir, temporary)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		opts.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	l := &lab{opts: opts, dir: opts.Dir, start: time.Now()}
	rep, err := l.run(ctx)
	switch {
	case temporary && err == nil && (rep == nil || rep.Well()):
		err = os.RemoveAll(l.dir)
	case temporary:
		l.say("everything is kept in %s", l.dir)
	}
	return rep, err
}

func machinesLog(dir string, temporary bool) (*os.File, error) {
	path := os.DevNull
	if !temporary {
		path = filepath.Join(dir, "machines.log")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the machines: %w", err)
	}
	return f, nil
}

// workDir is the directory to use, made if need be.
func workDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "ironring-lab-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// What is there may be a lab that runs, or somebody's files.
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("--dir: %s is not empty (it has %s): give an empty directory or a new one", dir, there[0].Name())
	}
	return dir, err
}

// run is the life of a lab.
func (l *lab) run(ctx context.Context) (rep *Report, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { err = errors.Join(err, l.down()) }()
	if err := l.up(ctx); err != nil {
		return nil, err
	}
	for i := range l.opts.Nodes {
		add := l.addMachine
		if i > 0 && i == l.opts.Nodes-1 && ipmitool() {
			add = l.addIPMI
		}
		if _, err := add(machineDisk); err != nil {
			return nil, err
		}
	}
	for _, n := range l.nodes {
		if err := l.enrol(ctx, n); err != nil {
			return nil, err
		}
	}
	l.say("%d machines enrolled, %s", len(l.nodes), l.protocols())
	if l.opts.Once {
		return l.story(ctx)
	}
	l.howTo()
	<-ctx.Done()
	return nil, nil
}

// up brings everything up but the machines. down must follow, also after an
// error.
func (l *lab) up(ctx context.Context) (err error) {
	if l.net, err = claimLoopback(); err != nil {
		return err
	}
	l.later(l.net.release)
	if l.images, err = startImages(l.net.image(), l.opts.ImageMiB, l.opts.ImageRate); err != nil {
		return err
	}
	l.later(func() error { l.images.stop(); return nil })
	if err := l.writeBootPrograms(); err != nil {
		return err
	}
	l.later(l.stopPeers)
	if err := l.startPeers(ctx); err != nil {
		return err
	}
	if err := l.publishRamdisk(ctx); err != nil {
		return fmt.Errorf("publish the ramdisk: %w", err)
	}
	// Machines end before the peers: a peer that goes must not look like a fault.
	if err := l.machines.prepare(ctx, l.net.bmc()); err != nil {
		return err
	}
	l.later(l.stopMachines)
	return nil
}

func (l *lab) later(f func() error) { l.undo = append(l.undo, f) }

// down ends everything that up and addMachine started, in the opposite order.
func (l *lab) down() (err error) {
	for _, f := range slices.Backward(l.undo) {
		err = errors.Join(err, f())
	}
	l.undo = nil
	return err
}

// say prints a line for people.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.opts.Progress, "%6.1fs  %s\n", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
}

// protocols says what the BMCs speak.
func (l *lab) protocols() string {
	if last := l.nodes[len(l.nodes)-1]; last.ipmi != nil {
		return "by Redfish but for " + last.name + ", whose BMC speaks IPMI"
	}
	return "by Redfish"
}

func (l *lab) howTo() {
	p := l.peers[0]
	l.say("the lab is up: %d peers, %d machines in state enroll; stop it with Ctrl-C", len(l.peers), len(l.nodes))
	fmt.Fprintf(l.opts.Progress, `
Talk to it from another terminal:

  export IRONRING_SOCKET=%s
  ironring cluster status
  ironring node list
  ironring node manage %[2]s --wait
  ironring node provide %[2]s --wait --yes
  ironring node deploy %[2]s --wait --image '%[3]s' --checksum %[4]s
  ironring node logs -f %[2]s

`, p.socket, l.nodes[0].name, l.images.url(l.nodes[0].name), l.images.checksum)
}
