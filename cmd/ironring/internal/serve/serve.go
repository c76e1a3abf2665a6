package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/internal/version"
	"github.com/ironring/ironring/pxe"
	"github.com/ironring/ironring/pxe/artifact"
)

// Options say how a peer starts.
type Options struct {
	Config    *config.Config
	Init      bool   // found a new cluster
	JoinToken string // join a cluster; a secret
	Logger    *slog.Logger
}

// Run is the life of one peer. It returns when ctx ends, when the peer has
// left its cluster, or when a part of it fails.
func Run(ctx context.Context, opts Options) error {
	tuneGC()
	p, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}

// Join makes the data directory that of a member, by a token, and runs
// nothing: `serve` does that afterwards.
func Join(ctx context.Context, opts Options) (clusterID string, err error) {
	reg, err := registry(opts.Config.Drivers)
	if err != nil {
		return "", err
	}
	cc := clusterConfig(opts, reg)
	// What would keep the peer from starting is said before the token is spent.
	cc.Prepare = func() error {
		l, err := openListeners(opts.Config)
		if err != nil {
			return err
		}
		return l.close()
	}
	c, err := cluster.Open(ctx, cc)
	if err != nil {
		return "", err
	}
	id := c.ClusterID()
	return id, c.Close()
}

// Peer is an opened peer.
type Peer struct {
	cfg       *config.Config
	log       *slog.Logger
	cluster   *cluster.Cluster
	conductor *conductor.Conductor
	artifacts *artifact.Keeper
	boot      *pxe.Server
	api       net.Listener
	agent     net.Listener
	socket    net.Listener
	metrics   net.Listener // nil: not served
	registry  *prometheus.Registry
}

// Open opens everything that can be in use or wrong. Run must follow.
func Open(ctx context.Context, opts Options) (_ *Peer, err error) {
	cfg := opts.Config
	p := &Peer{cfg: cfg, log: opts.Logger, registry: newRegistry()}
	var opened []func() error
	defer func() {
		if err != nil {
			for _, c := range opened {
				err = errors.Join(err, c())
			}
		}
	}()
	reg, err := registry(cfg.Drivers)
	if err != nil {
		return nil, err
	}

	cc := clusterConfig(opts, reg)
	cc.Prepare = func() error {
		l, err := openListeners(cfg)
		if err != nil {
			return err
		}
		opened = append(opened, l.close)
		p.api, p.agent, p.socket, p.metrics = l.api, l.agent, l.socket, l.metrics
		return nil
	}
	cc.Registerer = p.registry
	// Called when the cluster runs; the conductor is made before that.
	cc.PeerServices = append(cc.PeerServices, func(r grpc.ServiceRegistrar) {
		api.RegisterConductorServer(r, p.conductor.API())
		api.RegisterArtifactsServer(r, p.artifacts)
	})
	if p.cluster, err = cluster.Open(ctx, cc); err != nil {
		return nil, err
	}
	opened = append(opened, p.cluster.Close)
	p.log = p.log.With("peer", p.cluster.ID())
	if err := p.openArtifacts(); err != nil {
		return nil, err
	}
	if err := p.openConductor(reg); err != nil {
		return nil, err
	}
	b := p.bootConfig()
	if b.Media, err = p.openMedia(); err != nil {
		return nil, err
	}
	if p.boot, err = pxe.New(b); err != nil {
		return nil, err
	}
	return p, nil
}

func clusterConfig(opts Options, reg *drivers.Registry) cluster.Config {
	cfg := opts.Config
	settings := cluster.DefaultSettings()
	if cfg.Profile == config.ProfileLAN {
		settings.Timing = cluster.LANTiming()
	}
	return cluster.Config{
		DataDir: cfg.DataDir, ID: cfg.GivenID(),
		ClusterListen: cfg.Listen.Cluster, GossipListen: cfg.Listen.Gossip,
		Advertised: &api.Member{
			ClusterAddress: cfg.Advertise.Cluster, GossipAddress: cfg.Advertise.Gossip, ApiAddress: cfg.Advertise.API,
			AgentAddress: cfg.Advertise.Agent, BootAddress: cfg.Advertise.Boot,
			Weight: cfg.Weight, Group: cfg.Group, Zone: cfg.Zone, Drivers: reg.Names(),
			Version: version.String(), FeatureLevel: version.FeatureLevel,
		},
		Init: opts.Init, Settings: settings, JoinToken: opts.JoinToken, Form: formation(cfg),
		Raft:   cluster.RaftTimeouts{Heartbeat: cfg.Raft.Heartbeat, Election: cfg.Raft.Election, LeaderLease: cfg.Raft.LeaderLease},
		Logger: opts.Logger.With("part", "cluster"),
	}
}

func (p *Peer) openConductor(reg *drivers.Registry) error {
	machineID, bootID, err := cluster.HostIDs()
	if err != nil {
		return fmt.Errorf("identify this host: %w", err)
	}
	p.conductor, err = conductor.New(conductor.Config{
		Cluster: p.cluster, MachineID: machineID, BootID: bootID, Registry: reg, DataDir: p.cfg.DataDir,
		Version: version.String(), BMCReadTimeout: p.cfg.BMC.ReadTimeout, Artifacts: p.artifacts,
		// The boot services need the conductor, so they are opened after it.
		DescribeBoot: func(nodeID string) (*api.BootRecordReply, error) { return p.boot.Describe(nodeID) },
		Clock:        clock.System{}, Logger: p.log.With("part", "conductor"),
	})
	return err
}

func (p *Peer) bootConfig() pxe.Config {
	b := listenBoot(p.cfg)
	b.Store, b.Self, b.Allocate, b.Observe = p.cluster.Store(), p.cluster.ID(), p.conductor.Allocate, p.conductor.Observe
	b.PhoneHome = p.conductor.PhoneHome
	b.LeaderSeen, b.CADigest = p.cluster.LeaderContact, p.cluster.CA().Digest()
	b.KernelArgs, b.RamdiskDir, b.IPXEDir = strings.Fields(p.cfg.Boot.KernelArgs), p.cfg.Boot.RamdiskDir, p.cfg.Boot.IPXEDir
	b.Files, b.Logger = p.artifacts, p.log.With("part", "boot")
	return b
}

// Run works until ctx ends; see the package comment for the order of stopping.
func (p *Peer) Run(ctx context.Context) error {
	p.log.Info("peer starts", "version", version.String(), "cluster", p.cluster.ClusterID(),
		"api", p.api.Addr().String(), "agent", p.agent.Addr().String(), "socket", p.cfg.Socket)
	stages := []stage{
		{"cluster", p.cluster.Run},
		{"artifacts", p.artifacts.Run},
		{"agent listener", func(ctx context.Context) error { return serveGRPC(ctx, p.agentServer(), p.agent) }},
		{"conductor", p.conductor.Run},
		{"api listener", func(ctx context.Context) error { return serveGRPC(ctx, p.apiServer(true), p.api) }},
		{"unix socket", func(ctx context.Context) error { return serveGRPC(ctx, p.apiServer(false), p.socket) }},
		{"boot services", p.boot.Run},
	}
	if p.metrics != nil {
		stages = append(stages, stage{"metrics listener", func(ctx context.Context) error { return serveMetrics(ctx, p.registry, p.metrics) }})
	}
	err := runStages(ctx, p.log, stages)
	p.log.Info("peer has stopped")
	return err
}

// apiServer serves clients; over the network with TLS, and joining peers too.
func (p *Peer) apiServer(network bool) *grpc.Server {
	opts := append(rpc.ServerOptions(p.log), grpc.ChainUnaryInterceptor(service.UnaryAuth), grpc.ChainStreamInterceptor(service.StreamAuth))
	if network {
		// A joiner has no certificate yet; UnaryAuth asks everybody else for one.
		opts = append(opts, p.networkTLS()...)
	}
	srv := grpc.NewServer(opts...)
	api.RegisterIronringServer(srv, p.conductor.API())
	if network {
		api.RegisterJoinServer(srv, p.cluster.JoinServer())
	}
	return srv
}

// networkTLS is for listeners that callers without a certificate may use too.
// A peer that was removed is refused, also on a connection that it has open.
func (p *Peer) networkTLS() []grpc.ServerOption {
	conf := p.cluster.TLS().ServerTLS(false)
	conf.VerifyConnection = p.cluster.AdmitTLS
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(conf)),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := p.cluster.AdmitCall(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := p.cluster.AdmitCall(s.Context()); err != nil {
				return err
			}
			return next(srv, s)
		}),
	}
}

// agentServer serves the agents; one that enrols has no certificate yet.
func (p *Peer) agentServer() *grpc.Server {
	srv := grpc.NewServer(append(rpc.ServerOptions(p.log), p.networkTLS()...)...)
	api.RegisterAgentServer(srv, p.conductor.AgentServer())
	return srv
}
