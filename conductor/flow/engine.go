package flow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// maxTasks bounds the flows that one conductor works on at the same time, those
// not counted that wait for a machine or its agent.
const maxTasks = 256

// leavingLook is how often nodes are looked at that are to go to others: it may
// be that they must stay after all.
const leavingLook = 5 * time.Second

// Keyring opens what is sealed in a flow's arguments.
type Keyring interface {
	OpenDoc(aad string, doc []byte) ([]byte, error)
}

// Config of an Engine; all fields but PeerFacts and Dial are required.
type Config struct {
	Member  string
	Store   *fsm.Store
	Propose func(ctx context.Context, cmd *api.Command) (*api.Result, error)
	Keeper  *lease.Keeper
	Watch   *watch.Broker
	BMC     *bmc.Access
	Hub     *agents.Hub
	Journal *journal.Journal
	// Dial makes TCP connections to deployed systems; nil: those of the host.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// PeerFacts asks the other live peers what they have seen of a node: copies
	// of their journals may have been lost. May be nil.
	PeerFacts func(ctx context.Context, node string) map[string]*api.LiveFacts
	Keyring   Keyring
	Images    Images // nil: image_download_source local is refused
	Clock     clock.Clock
	Logger    *slog.Logger
}

// Engine works on the unfinished flows of the nodes that this peer owns.
type Engine struct {
	cfg   Config
	slots chan struct{}
	turns *turns
}

// New makes an Engine.
func New(cfg Config) *Engine {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	return &Engine{cfg: cfg, slots: make(chan struct{}, maxTasks), turns: newTurns()}
}

// Run works until ctx ends. It then stops in order: no step is begun, BMC
// changes under way are brought to an end, locks are released, so that others
// can go on at once. Run returns when every task has ended; the gate must stay
// open until then.
//
// A stop takes stopLimit at most: what has not ended then is cut as if the gate
// had closed, and the lease must expire. An error says that a task did not even
// end then: the process must exit.
func (e *Engine) Run(ctx context.Context) error {
	for {
		gate, err := e.cfg.Keeper.Wait(ctx)
		if err != nil {
			return nil
		}
		hard, leave, err := gate.Enter(context.WithoutCancel(ctx))
		if err != nil { // its deadline has passed, it is about to be closed
			select {
			case <-gate.Done():
			case <-ctx.Done():
			}
			continue
		}
		if err := e.bounded(ctx, hard, gate); err != nil {
			return err // still inside: the gate must know
		}
		leave()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Bounds of an orderly stop. A BMC call that hangs is cut after callGrace
// (mutate.go); what it may have done is then waited for (Q), and read.
const (
	stopLimit = 15 * time.Second
	cutLimit  = 3 * time.Second // from the cut until a task has ended
	callGrace = 3 * time.Second
)

// bounded is serve whose end is bounded.
func (e *Engine) bounded(ctx, hard context.Context, gate *lease.Gate) error {
	hard, cut := context.WithCancelCause(hard)
	defer cut(nil)
	ended := make(chan struct{})
	go func() { defer close(ended); e.serve(ctx, hard, gate) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, limit := range []time.Duration{stopLimit, cutLimit} {
		t := time.NewTimer(limit)
		select {
		case <-ended:
			t.Stop()
			return nil
		case <-t.C:
			cut(errStopping)
		}
	}
	return fmt.Errorf("work did not end within %v", stopLimit+cutLimit)
}

// serve runs tasks under one gate until it closes (hard ends) or the engine is
// to stop (ctx ends).
func (e *Engine) serve(ctx, hard context.Context, gate *lease.Gate) {
	sig, stop := e.cfg.Watch.Subscribe(watch.All)
	defer stop()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	running := map[string]bool{}
	failures := map[string]int{} // in a row
	type ending struct {
		id     string
		failed bool
	}
	ended := make(chan ending)
	leaving := map[string]bool{} // nodes that the leader should give to others
	again := time.NewTicker(leavingLook)
	defer again.Stop()
	consider := func(id string) {
		if running[id] {
			return // it is looked at again when its task has ended
		}
		if !e.mine(id, gate.Lease) {
			if e.leaves(id) {
				leaving[id] = true
			}
			return
		}
		running[id] = true
		before := failures[id]
		tasks.Go(func() {
			failed := e.task(hard, ctx.Done(), gate, id, before)
			select {
			case ended <- ending{id, failed}:
			case <-ctx.Done():
			case <-hard.Done():
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hard.Done():
			return
		case end := <-ended:
			delete(running, end.id)
			if end.failed {
				failures[end.id]++
			} else {
				delete(failures, end.id)
			}
			consider(end.id)
		case <-again.C: // reach changes without a change of the node
			for id := range leaving {
				delete(leaving, id)
				consider(id)
			}
		case <-sig.C:
			nodes, all := sig.Take()
			if all {
				v := e.cfg.Store.View()
				for f := range v.RunningFlows() {
					nodes = append(nodes, f.GetNodeId())
				}
				for l := range v.LocksOf(gate.Lease) {
					nodes = append(nodes, l.GetNodeId())
				}
			}
			for _, id := range nodes {
				consider(id)
			}
		}
	}
}

// mine says whether this lease has something to do on a node: an unfinished
// flow that it holds or may take, or a lock left behind by a finished one.
func (e *Engine) mine(id, leaseID string) bool {
	v := e.cfg.Store.View()
	if l := v.Lock(id); l != nil {
		return l.GetLeaseId() == leaseID
	}
	f := v.Flow(id)
	return f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING && v.Node(id).GetAssigned() == e.cfg.Member && !e.leaves(id)
}

// leaves says whether a node of ours should go to a peer that reaches its BMC.
func (e *Engine) leaves(id string) bool {
	v := e.cfg.Store.View()
	n := v.Node(id)
	return n != nil && n.GetAssigned() == e.cfg.Member && duties.ReachOf(v).HandsOver(n)
}

// task works on one node until there is nothing left to do or it has failed to
// get on, in which case it pauses so that its caller may try again at once.
// before is how often in a row it has failed already.
func (e *Engine) task(ctx context.Context, stopping <-chan struct{}, gate *lease.Gate, id string, before int) (failed bool) {
	over := e.turn(ctx, stopping, id)
	if over == nil {
		return false
	}
	defer over()
	if !e.mine(id, gate.Lease) {
		return false // while it waited for its turn somebody else came first
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-stopping:
		return false
	case <-ctx.Done():
		return false
	}
	r := &runner{Engine: e, gate: gate, hard: ctx, stopping: stopping, node: id, turnOver: over, log: e.cfg.Logger.With("node", id)}
	err := r.run(ctx)
	if err == nil || ctx.Err() != nil || r.isStopping() {
		return false
	}
	if errors.Is(err, errs.Fenced) || errors.Is(err, errs.Conflict) || errors.Is(err, errs.Locked) {
		r.log.Debug("task ended: somebody else came first", "err", err)
	} else {
		r.log.Warn("task could not go on; it will be tried again", "err", err)
	}
	most := 500 * time.Millisecond << min(before, 4)
	t := time.NewTimer(most/2 + rand.N(most))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-stopping:
	case <-t.C:
	}
	return true
}

// turn waits until work on a node may begin. Only work that somebody has begun
// before has to: new flows come one by one, a takeover brings all at once.
func (e *Engine) turn(ctx context.Context, stopping <-chan struct{}, id string) (over func()) {
	v := e.cfg.Store.View()
	f := v.Flow(id)
	if f.GetStatus() != api.FlowStatus_FLOW_RUNNING || f.GetAttempt() == 0 {
		return func() {}
	}
	subnet := ""
	if v.Intent(id) != nil || !agentOnly(f) {
		subnet = node.BMCSubnet(v.Node(id))
	}
	tell := func(why string) {
		e.cfg.Journal.Update(id, func(f *api.LiveFacts) { f.Waits = why })
	}
	defer tell("")
	return e.turns.take(ctx, stopping, id, subnet, f.GetCreatedTick(), tell)
}

// agentOnly says whether the step at the cursor leaves the BMC alone.
func agentOnly(f *api.Flow) bool {
	if int(f.GetCursor()) >= len(f.GetSteps()) {
		return true
	}
	switch step := node.IDOf(f.GetSteps()[f.GetCursor()]); step.Interface {
	case "power", "management":
		return false
	default:
		return step != node.StepCheckIdentity
	}
}
