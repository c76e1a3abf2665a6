// Package daemon is one peer: it wires cluster, conductor, boot services and
// listeners together, and runs and stops them in order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/ipmi"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/version"
	"github.com/ironring/ironring/pxe"
)

// Options of a daemon.
type Options struct {
	Config    *config.Config
	Init      bool   // found a new cluster
	JoinToken string // join one; a secret
	Logger    *slog.Logger
}

// Run is a peer from start to end. It returns nil after an orderly stop.
//
// Stop order: listeners for clients and boot clients close, so that nothing new
// comes in; the conductor parks its flows and releases its lease, which needs
// the cluster; the cluster hands over leadership and ends last.
func Run(ctx context.Context, opts Options) error {
	cfg, log := opts.Config, opts.Logger
	registry, err := registry(cfg.Drivers)
	if err != nil {
		return err
	}
	machineID, bootID, err := cluster.HostIDs()
	if err != nil {
		return err
	}
	var cond *conductor.Conductor // set before the cluster runs
	cl, err := cluster.Open(ctx, cluster.Config{
		DataDir: cfg.DataDir, ID: cfg.GivenID(),
		ClusterListen: cfg.Listen.Cluster, GossipListen: cfg.Listen.Gossip,
		Advertised: &api.Member{
			ClusterAddress: cfg.Advertise.Cluster, GossipAddress: cfg.Advertise.Gossip, ApiAddress: cfg.Advertise.API,
			AgentAddress: cfg.Advertise.Agent, BootAddress: cfg.Advertise.Boot,
			Weight: cfg.Weight, Group: cfg.Group, Zone: cfg.Zone, Drivers: registry.Names(),
			Version: version.String(), FeatureLevel: version.FeatureLevel,
		},
		Init: opts.Init, JoinToken: opts.JoinToken, Settings: settings(cfg.Profile),
		Raft:   cluster.RaftTimeouts{Heartbeat: cfg.Raft.Heartbeat, Election: cfg.Raft.Election, LeaderLease: cfg.Raft.LeaderLease},
		Logger: log.With("part", "cluster"),
		PeerServices: []func(grpc.ServiceRegistrar){
			func(r grpc.ServiceRegistrar) { api.RegisterConductorServer(r, cond.API()) },
		},
	})
	if err != nil {
		return err
	}
	closing := true // until Run of the cluster takes over
	defer func() {
		if closing {
			_ = cl.Close() // the error that made us stop says more
		}
	}()
	log = log.With("peer", cl.ID())
	if cond, err = conductor.New(conductor.Config{
		Cluster: cl, MachineID: machineID, BootID: bootID, Registry: registry, DataDir: cfg.DataDir,
		Version: version.String(), Clock: clock.System{}, Logger: log.With("part", "conductor"),
	}); err != nil {
		return err
	}
	boot, err := pxe.New(bootConfig(cfg, cl, cond, log.With("part", "boot")))
	if err != nil {
		return err
	}
	servers, err := listen(cfg, cl, cond, log.With("part", "api"))
	if err != nil {
		boot.Close()
		return err
	}
	closing = false
	return run(ctx, cl, cond, boot, servers, log)
}

// run runs the parts; see Run for the order in which they stop.
func run(ctx context.Context, cl *cluster.Cluster, cond *conductor.Conductor, boot *pxe.Server, srv *servers, log *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	background := context.WithoutCancel(ctx)
	clusterCtx, stopCluster := context.WithCancel(background)
	defer stopCluster()

	var last, first errgroup.Group
	// Whatever ends, for whatever reason, ends the peer.
	part := func(g *errgroup.Group, name string, f func() error) {
		g.Go(func() error {
			err := f()
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			stop(err)
			return err
		})
	}
	part(&last, "cluster", func() error { return cl.Run(clusterCtx) })
	part(&first, "boot services", func() error { return boot.Run(ctx) })
	part(&first, "listeners", func() error { return srv.run(ctx) })
	part(&first, "conductor", func() error { return cond.Run(ctx) })
	log.Info("peer started", "version", version.String(), "cluster", cl.ClusterID(), "api", srv.apiAddr(), "socket", srv.socket)
	err := first.Wait()
	stopCluster()
	if lastErr := last.Wait(); err == nil {
		err = lastErr
	}
	if err == nil || errors.Is(err, context.Canceled) {
		log.Info("peer stopped")
		return nil
	}
	return err
}

// registry makes the drivers that the configuration lists.
func registry(names []string) (*drivers.Registry, error) {
	known := map[string]func() (drivers.Driver, error){
		"ipmi":    func() (drivers.Driver, error) { return ipmi.New(ipmi.Config{}) },
		"redfish": func() (drivers.Driver, error) { return redfish.New(redfish.Config{}) },
	}
	var out []drivers.Driver
	for _, n := range names {
		newDriver := known[n]
		if newDriver == nil {
			return nil, errs.About(errs.Invalid, "drivers", "drivers: %q is none of ipmi, redfish, fake", n)
		}
		d, err := newDriver()
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return drivers.NewRegistry(out...), nil
}

// settings of a cluster that is founded here.
func settings(profile string) *api.Settings {
	s := cluster.DefaultSettings()
	if profile == config.ProfileLAN {
		s.Timing = cluster.LANTiming()
	}
	return s
}

func bootConfig(cfg *config.Config, cl *cluster.Cluster, cond *conductor.Conductor, log *slog.Logger) pxe.Config {
	c := pxe.Config{
		Store: cl.Store(), Self: cl.ID(), Allocate: cond.Allocate, LeaderSeen: cl.LeaderContact, Observe: cond.Observe,
		CADigest: cl.CA().Digest(), KernelArgs: strings.Fields(cfg.Boot.KernelArgs),
		RamdiskDir: cfg.Boot.RamdiskDir, IPXEDir: cfg.Boot.IPXEDir,
		TFTPListen: cfg.Listen.TFTP, HTTPListen: cfg.Listen.Boot, Logger: log,
	}
	if cfg.Boot.DHCP == config.DHCPFull {
		c.DHCPListen = cfg.Listen.DHCP
		if cfg.Boot.Interface != "" {
			c.DHCPInterfaces = []string{cfg.Boot.Interface}
		}
	}
	return c
}

// stopLimit bounds how long listeners wait for calls under way.
const stopLimit = 3 * time.Second
