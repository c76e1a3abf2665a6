// Package service is the API of a peer: it serves api.IronringServer to
// clients and api.ConductorServer to other peers.
//
// Any peer takes any request. A change of a record and a request for work are
// validated here and committed, whoever owns the node; the owner finds the
// work in the log. Only what lives in the memory of the holder or owner (live
// facts, progress) is asked of it, in one hop (routing.go).
//
// Rules: secrets are sealed before they enter a command and masked before a
// record leaves; everything a client sends is bounded and checked here, once.
package service

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// Cluster is what the service needs of package cluster.
type Cluster interface {
	ID() string
	ClusterID() string
	Store() *fsm.Store
	Propose(ctx context.Context, cmd *api.Command) (*api.Result, error)
	ProposeAll(ctx context.Context, cmds []*api.Command) []cluster.Outcome
	ReadIndex(ctx context.Context) (uint64, error)
	LeaderContact() time.Duration
	Behind() time.Duration
	Alive(id string) bool
	PeerConn(id string) (*grpc.ClientConn, error)
	CA() *pki.CA
	Keyring() *seal.Keyring
	CreateJoinToken(ctx context.Context, ttl time.Duration) (token string, expires time.Time, err error)
	Leave(ctx context.Context) error // Config.Leave parks the work before
	Remove(ctx context.Context, id string) error
	Status(ctx context.Context) *api.ClusterStatusReply
}

// Config of a Service; all fields but DescribeBoot are required.
type Config struct {
	Cluster Cluster
	// Leave takes this peer out of the cluster, its work parked before.
	Leave    func(ctx context.Context) error
	Registry *drivers.Registry
	Journal  *journal.Journal
	Watch    *watch.Broker
	Endpoint *agents.Endpoint
	Version  string
	// Artifacts are the files of this peer. nil: none can be put.
	Artifacts Artifacts
	// DescribeBoot says what this peer's boot services would answer the machine
	// of a node. nil: it has none.
	DescribeBoot func(nodeID string) (*api.BootRecordReply, error)
	// PeerFacts asks the other live peers what they have seen of a node. nil:
	// nobody is asked.
	PeerFacts func(ctx context.Context, nodeID string) map[string]*api.LiveFacts
	// Hardware asks a node's BMC about parts of the hardware. nil: nobody is
	// asked.
	Hardware func(ctx context.Context, nodeID string, parts []api.HardwarePart) (*api.GetHardwareReply, error)
	Clock    clock.Clock
	Logger   *slog.Logger
}

// Service implements the gRPC services of a peer. Safe for concurrent use.
type Service struct {
	api.UnimplementedIronringServer
	api.UnimplementedConductorServer
	cfg      Config
	renewals *renewals
}

// New makes a Service.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, renewals: &renewals{store: cfg.Cluster.Store(), clock: cfg.Clock}}
}

// Run watches what answers need to know until ctx ends. Without it the service
// answers all the same.
func (s *Service) Run(ctx context.Context) error {
	s.renewals.run(ctx)
	return nil
}

// staleAfter is how long ago the last contact with a leader may lie before
// answers are marked as perhaps old.
const staleAfter = 3 * time.Second

// behindAfter is the same for the last entry that this peer applied: the leader
// commits one each second, which a busy disk may hold up for a moment.
const behindAfter = 6 * time.Second

// minIndexWait bounds how long a read waits for an index.
const minIndexWait = 2 * time.Second

// view gives a view that satisfies the read options.
func (s *Service) view(ctx context.Context, opts *api.ReadOptions) (*fsm.View, error) {
	if opts.GetLinearizable() {
		if _, err := s.cfg.Cluster.ReadIndex(ctx); err != nil {
			return nil, err
		}
	}
	if min := opts.GetMinIndex(); min > 0 {
		wctx, cancel := context.WithTimeout(ctx, minIndexWait)
		defer cancel()
		if err := s.cfg.Cluster.Store().WaitIndex(wctx, min); err != nil {
			return nil, errs.New(errs.NoQuorum, "this peer has not seen index %d yet: ask another peer", min)
		}
	}
	return s.cfg.Cluster.Store().View(), nil
}

// Stale reports whether what this peer says may be old: it has no contact with a
// leader, or it hears the leader and applies nothing, as with a full disk.
func (s *Service) Stale() bool {
	return s.cfg.Cluster.LeaderContact() > staleAfter || s.cfg.Cluster.Behind() > behindAfter
}

// propose commits one command for a client.
func (s *Service) propose(ctx context.Context, requestID, reason string, ops ...*api.Op) (*api.Result, error) {
	res, err := s.cfg.Cluster.Propose(ctx, s.command(ctx, requestID, reason, ops...))
	return res, s.named(err)
}

// command is what a client asked for.
func (s *Service) command(ctx context.Context, requestID, reason string, ops ...*api.Op) *api.Command {
	principal, source := caller(ctx)
	return &api.Command{
		Meta: &api.Meta{Principal: principal, Source: source, RequestId: requestID, Reason: reason, WallMs: s.cfg.Clock.Now().UnixMilli()},
		Ops:  ops,
	}
}
