package agents

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/sources"
	"github.com/ironring/ironring/node"
)

// certificateTTL bounds an agent's certificate: longer than any step may take.
const certificateTTL = 24 * time.Hour

// Bounds of enrolment at one peer: an enrolment costs a signature and an entry
// of the log, and needs no certificate. A rack that boots at once behind one
// router stays below them; agents that are told to wait try again.
var (
	enrolPerHost = sources.Rate{PerSecond: 20, Burst: 40}
	enrolInAll   = sources.Rate{PerSecond: 100, Burst: 200}
)

// Config of an Endpoint; all fields are required.
type Config struct {
	Self      string
	Store     *fsm.Store
	Propose   func(ctx context.Context, cmd *api.Command) (*api.Result, error)
	ReadIndex func(ctx context.Context) (uint64, error)
	PeerConn  func(id string) (*grpc.ClientConn, error)
	CA        *pki.CA
	Hub       *Hub
	Journal   *journal.Journal
	Watch     *watch.Broker
	Clock     clock.Clock
	Logger    *slog.Logger
}

// Endpoint is where agents' streams end: it serves api.AgentServer.
type Endpoint struct {
	api.UnimplementedAgentServer
	cfg    Config
	limits *sources.Limits
}

// NewEndpoint makes an Endpoint.
func NewEndpoint(cfg Config) *Endpoint {
	return &Endpoint{cfg: cfg, limits: sources.New(sources.Config{
		Calls: "enrolments", Host: enrolPerHost, All: enrolInAll, Passed: cfg.Clock.Elapsed,
	})}
}

// Enrol implements api.AgentServer: the agent of the current boot proves by
// its nonce and its hardware which node it is and gets a short certificate.
func (e *Endpoint) Enrol(ctx context.Context, req *api.EnrolRequest) (*api.EnrolReply, error) {
	host, _ := netip.ParseAddr(remote(ctx)) // whoever has no address counts as one host
	if err := e.limits.Allow(host); err != nil {
		return nil, err
	}
	csr, err := pki.ParseRequest(req.GetCsrDer())
	if err != nil {
		return nil, errs.New(errs.Invalid, "certificate request of the agent: %w", err)
	}
	if len(req.GetMacs()) > 256 || len(req.GetIncarnation()) > 64 || len(req.GetVersion()) > 64 {
		return nil, errs.New(errs.Invalid, "enrolment is too large")
	}
	n, err := e.bootOf(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := e.known(n, req); err != nil {
		e.event(n.GetId(), "enrolment refused: "+err.Error(), req.GetNonce())
		return nil, err
	}
	now := e.cfg.Clock.Now()
	_, err = e.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "agent:" + n.GetId(), Source: remote(ctx), Reason: "enrolment", WallMs: now.UnixMilli()},
		Ops: []*api.Op{{Op: &api.Op_AgentEnrol{AgentEnrol: &api.AgentEnrol{NodeId: n.GetId(), Session: &api.AgentSession{
			Nonce: req.GetNonce(), KeyDigest: pki.KeyDigest(csr.RawSubjectPublicKeyInfo), Incarnation: req.GetIncarnation(),
			EnrolledMs: now.UnixMilli(), Address: remote(ctx), Version: req.GetVersion(),
		}}}}},
	})
	if errors.Is(err, errs.Conflict) {
		e.event(n.GetId(), "a second machine claims this boot", req.GetNonce())
		e.failFlow(ctx, n.GetId(), err)
	}
	if err != nil {
		return nil, err
	}
	cert, err := e.cfg.CA.Issue(req.GetCsrDer(), pki.Identity{Cluster: e.cfg.CA.Cluster(), Role: pki.RoleAgent, Name: n.GetId(), Nonce: req.GetNonce()}, certificateTTL, now)
	if err != nil {
		return nil, err
	}
	e.event(n.GetId(), "agent enrolled from "+remote(ctx), req.GetNonce())
	return &api.EnrolReply{CertDer: cert, ServerMs: now.UnixMilli(), Peers: AgentAddresses(e.cfg.Store.View(), e.cfg.Self)}, nil
}

// bootOf finds the node whose current boot has the nonce. A peer that lags
// asks the leader how far it must be before it says no.
func (e *Endpoint) bootOf(ctx context.Context, req *api.EnrolRequest) (*api.Node, error) {
	current := func() *api.Node {
		n := e.cfg.Store.View().Node(req.GetNodeId())
		if n.GetBoot().GetTarget() == api.BootTarget_BOOT_RAMDISK && req.GetNonce() != "" && n.GetBoot().GetNonce() == req.GetNonce() {
			return n
		}
		return nil
	}
	if n := current(); n != nil {
		return n, nil
	}
	if _, err := e.cfg.ReadIndex(ctx); err != nil {
		return nil, err
	}
	if n := current(); n != nil {
		return n, nil
	}
	return nil, errs.New(errs.Denied, "the boot nonce is not that of a boot under way")
}

// known compares what the machine says of itself with what is recorded: one of
// its MACs is a port of the node, or its UUID is the one its BMC gave.
func (e *Endpoint) known(n *api.Node, req *api.EnrolRequest) error {
	ports := e.cfg.Store.View().PortsOf(n.GetId())
	for _, p := range ports {
		if slices.ContainsFunc(req.GetMacs(), func(m string) bool {
			mac, err := node.NormalizeMAC(m)
			return err == nil && mac == p.GetAddress()
		}) {
			return nil
		}
	}
	said := append([]string{n.GetBmc().GetSystemUuid()}, n.GetBmc().GetSystemUuids()...)
	if node.TellingUUID(req.GetSystemUuid()) && slices.ContainsFunc(said, func(u string) bool { return strings.EqualFold(u, req.GetSystemUuid()) }) {
		return nil
	}
	return errs.About(errs.Denied, n.GetId(), "identity mismatch: the machine that booted has none of the node's MAC addresses, nor its UUID")
}

// failFlow ends the node's flow: two machines claim one boot, so neither may
// be written to.
func (e *Endpoint) failFlow(ctx context.Context, id string, cause error) {
	_, err := e.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "system", Source: remote(ctx), Reason: cause.Error(), WallMs: e.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: id, Event: api.Event_EV_FAIL}}}},
	})
	if err != nil {
		e.cfg.Logger.Warn("flow of a doubly claimed boot not stopped", "node", id, "err", err)
	}
}

func (e *Endpoint) event(id, text, nonce string) {
	e.cfg.Journal.Append(&api.JournalEvent{NodeId: id, Kind: journal.KindAgent, Stage: "agent", Text: text, BootNonce: nonce})
}

// AgentAddresses are the agent listeners of all members that may be up, the
// given member first.
func AgentAddresses(v *fsm.View, first string) []string {
	var out []string
	for _, m := range v.Members() {
		switch {
		case m.GetAgentAddress() == "" || m.GetPhase() == api.Member_LEFT:
		case m.GetId() == first:
			out = slices.Insert(out, 0, m.GetAgentAddress())
		default:
			out = append(out, m.GetAgentAddress())
		}
	}
	return out
}

func remote(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
