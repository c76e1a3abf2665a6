// Package power watches the power state of the machines that this peer owns.
//
// It only observes: what it reads goes into the record, and a difference from
// what was recorded is logged. Nodes with enforce_power get a power flow that
// puts the machine back; those flows go through the same door as a user's.
//
// A machine that a flow left in the ramdisk, for the next one to find its
// agent, is switched off the same way (idle.go).
//
// Rules: only the assigned owner polls; locked nodes, nodes with unfinished
// work, in maintenance, in enroll, or with a parked BMC are left alone; a poll
// never takes a lock, so it never makes a user's call wait; what the BMC of
// another machine says, after a change of driver_info, is recorded of no node.
package power

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/node"
)

// Config of a Sync.
type Config struct {
	Member  string
	Store   *fsm.Store
	Propose func(ctx context.Context, cmd *api.Command) (*api.Result, error)
	BMC     *bmc.Access
	Clock   clock.Clock
	Logger  *slog.Logger
	Every   time.Duration // between two looks at one node; 0: 2 min
	Workers int           // polls at the same time; 0: 8
}

// Sync polls until its context ends.
type Sync struct {
	cfg Config

	mu   sync.Mutex
	offs map[string]*off // guarded by mu; by node, of idle machines
}

// New makes a Sync.
func New(cfg Config) *Sync {
	if cfg.Every == 0 {
		cfg.Every = 2 * time.Minute
	}
	if cfg.Workers == 0 {
		cfg.Workers = 8
	}
	return &Sync{cfg: cfg, offs: map[string]*off{}}
}

// Run polls every owned node once in each period, a few at a time.
func (s *Sync) Run(ctx context.Context) error {
	for {
		start := s.cfg.Clock.Elapsed()
		s.round(ctx)
		rest := s.cfg.Every - (s.cfg.Clock.Elapsed() - start)
		t := time.NewTimer(max(rest, time.Second) + rand.N(time.Second))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

func (s *Sync) round(ctx context.Context) {
	slots := make(chan struct{}, s.cfg.Workers)
	var all sync.WaitGroup
	defer all.Wait()
	s.forget()
	for n := range s.cfg.Store.View().NodesAssigned(s.cfg.Member) {
		id := n.GetId()
		if s.due(id) == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		all.Go(func() {
			defer func() { <-slots }()
			s.look(ctx, id)
		})
	}
}

// due is the node if it may be polled now, else nil.
func (s *Sync) due(id string) *api.Node {
	v := s.cfg.Store.View()
	n, f := v.Node(id), v.Flow(id)
	if n == nil || n.GetAssigned() != s.cfg.Member || n.GetState() == api.State_ENROLL || n.GetMaintenance() ||
		v.Lock(id) != nil || f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING || s.cfg.BMC.Parked(n) != nil {
		return nil
	}
	return n
}

// look polls a node. The round may have begun long ago, and a BMC may take most
// of a minute: what was read counts only if nobody has held the lock since, and
// driver_info leads to the same BMC still.
func (s *Sync) look(ctx context.Context, id string) {
	before := s.due(id)
	if before == nil {
		return
	}
	if s.idle(before) && s.again(before) {
		s.switchOff(ctx, before)
		return
	}
	if before.GetBmc() != nil && node.BMCChanged(before) && !s.itsMachine(ctx, before) {
		return
	}
	is, err := s.cfg.BMC.Power(ctx, id)
	if err != nil {
		s.cfg.Logger.Debug("power not read", "node", id, "err", err)
		return
	}
	n := s.due(id)
	if n == nil || n.GetLastToken() != before.GetLastToken() || n.GetDriverRev() != before.GetDriverRev() || is == n.GetPowerState() || is == api.PowerState_POWER_UNKNOWN {
		return
	}
	s.cfg.Logger.Info("power state differs from the record", "node", n.GetId(), "recorded", n.GetPowerState().String(), "read", is.String(), "enforce", n.GetEnforcePower())
	op := &api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{
		NodeId: n.GetId(), AssignEpoch: n.GetAssignEpoch(), DriverRev: new(n.GetDriverRev()), Fields: []string{"power_state"}, Node: &api.Node{PowerState: is},
	}}}
	if n.GetEnforcePower() && n.GetPowerState() != api.PowerState_POWER_UNKNOWN {
		action := api.PowerAction_POWER_ACTION_OFF
		if n.GetPowerState() == api.PowerState_POWER_ON {
			action = api.PowerAction_POWER_ACTION_ON
		}
		steps, err := node.Plan(api.FlowKind_FLOW_POWER, action)
		if err != nil {
			return
		}
		op = &api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: n.GetId(), Rev: n.GetRev(), Flow: &api.Flow{
			Id: uuid.NewString(), NodeId: n.GetId(), Kind: api.FlowKind_FLOW_POWER, Steps: steps,
			Meta: &api.Meta{Principal: "peer:" + s.cfg.Member, Reason: "enforce the recorded power state"},
		}}}}
	}
	_, err = s.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + s.cfg.Member, Reason: "power state read", WallMs: s.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{op},
	})
	if err != nil {
		s.cfg.Logger.Debug("power state not recorded", "node", n.GetId(), "err", err)
	}
}
