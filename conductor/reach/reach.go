// Package reach observes which subnets of BMCs this peer reaches, from the
// calls that it makes anyway, and puts into the replicated state what others
// must know: that a subnet was lost or found again.
//
// It decides nothing: who owns a node is the leader's plan (package duties).
//
// Rules:
//   - A subnet is lost when for a minute every call failed, three at least; a
//     single answer, also a refusal, means that it is reached.
//   - While some call has failed, one BMC of the subnet is asked every round,
//     so that a slow poll does not decide. BMCs of others are asked only while
//     somebody misses their subnet.
//   - A lost subnet is found again after a minute of answers, five minutes
//     after it was lost at the earliest.
//   - The record changes only at these moments: no entry of the log is spent
//     on a subnet that is fine, or that stays lost.
//
// Concurrency: Contact may be called by anyone and never blocks; Run owns the
// rest. Start reading at Observer.Run.
package reach

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

const (
	roundEvery = 20 * time.Second
	probeLimit = 15 * time.Second // for one answer
	probesMost = 4                // at the same time

	lostCalls  = 3 // failed calls in a row, over
	lostAfter  = time.Minute
	foundAfter = time.Minute   // of answers
	foundTicks = 5 * 60 * 1000 // since it was lost, on the cluster clock
	forgetting = 10 * time.Minute
)

// Config of an Observer; all fields are required.
type Config struct {
	Member  string
	Store   *fsm.Store
	Propose func(ctx context.Context, cmd *api.Command) (*api.Result, error)
	// Probe asks the BMC of a node for something; its outcome comes to Contact.
	Probe func(ctx context.Context, node string)
	// Parked says that a BMC must be left alone.
	Parked func(n *api.Node) bool
	Clock  clock.Clock
	Logger *slog.Logger
}

// Observer is the observer of one peer.
type Observer struct {
	cfg Config

	mu   sync.Mutex
	seen map[string]*subnet // guarded by mu
	turn int                // guarded by mu; which node of a subnet is asked next
}

// subnet is what was seen of one. Times are on Clock.Elapsed.
type subnet struct {
	bad      int           // calls that failed since the last answer
	badSince time.Duration // the first of them
	good     bool          // there was an answer
	lastGood time.Duration // the last one
	since    time.Duration // since when there were answers only
}

// New makes an Observer.
func New(cfg Config) *Observer { return &Observer{cfg: cfg, seen: map[string]*subnet{}} }

// Contact notes the outcome of a call to the BMC of a node.
func (o *Observer) Contact(n *api.Node, err error) {
	answered := err == nil || errors.Is(err, errs.Denied)
	if !answered && !errors.Is(err, errs.Unreachable) && !errors.Is(err, errs.Timeout) {
		return // it says nothing of the way to the BMC
	}
	name := node.BMCSubnet(n)
	if name == "" {
		return
	}
	now := o.cfg.Clock.Elapsed()
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.seen[name]
	if s == nil {
		s = &subnet{}
		o.seen[name] = s
	}
	switch {
	case answered:
		if !s.good || s.bad > 0 {
			s.since = now
		}
		s.bad, s.good, s.lastGood = 0, true, now
	case s.bad == 0:
		s.bad, s.badSince = 1, now
	default:
		s.bad++
	}
}

// Run observes until ctx ends.
func (o *Observer) Run(ctx context.Context) error {
	for {
		t := time.NewTimer(roundEvery + rand.N(time.Second))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		o.round(ctx)
	}
}

func (o *Observer) round(ctx context.Context) {
	v := o.cfg.Store.View()
	mine, missed := map[string]*api.Reach{}, map[string]bool{}
	for _, r := range v.Reaches() {
		missed[r.GetSubnet()] = true // the records are of missed subnets only
		if r.GetMember() == o.cfg.Member {
			mine[r.GetSubnet()] = r
		}
	}
	o.probe(ctx, v, o.unsure(mine, missed))
	if ctx.Err() != nil {
		return
	}
	for name, reachable := range o.judge(v.Globals().GetTicks(), mine, missed) {
		o.tell(ctx, name, reachable)
	}
}

// unsure are the subnets of which one BMC must be asked: true where it may be
// anybody's.
func (o *Observer) unsure(mine map[string]*api.Reach, missed map[string]bool) map[string]bool {
	now := o.cfg.Clock.Elapsed()
	out := map[string]bool{}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, s := range o.seen {
		if s.bad > 0 {
			out[name] = false
		} else if now-s.lastGood > forgetting && !missed[name] {
			delete(o.seen, name)
		}
	}
	for name := range missed {
		if mine[name].GetReachable() {
			continue // said already; our own polls will tell when it is lost
		}
		if s := o.seen[name]; s == nil || s.bad > 0 || now-s.lastGood >= roundEvery/2 {
			out[name] = true
		}
	}
	return out
}

// probe asks one BMC of each of the subnets.
func (o *Observer) probe(ctx context.Context, v *fsm.View, subnets map[string]bool) {
	if len(subnets) == 0 {
		return
	}
	candidates := map[string][]*api.Node{}
	for n := range v.Nodes() {
		name := node.BMCSubnet(n)
		anybody, wanted := subnets[name]
		if !wanted || !anybody && n.GetAssigned() != o.cfg.Member || n.GetState() == api.State_ENROLL || n.GetMaintenance() || o.cfg.Parked(n) {
			continue
		}
		if v.Lock(n.GetId()) != nil && n.GetAssigned() != o.cfg.Member {
			continue // its holder may have all the connections that the BMC takes
		}
		candidates[name] = append(candidates[name], n)
	}
	o.mu.Lock()
	o.turn++
	turn := o.turn
	o.mu.Unlock()
	slots := make(chan struct{}, probesMost)
	var all sync.WaitGroup
	defer all.Wait()
	for _, nodes := range candidates {
		id := nodes[turn%len(nodes)].GetId()
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		all.Go(func() {
			defer func() { <-slots }()
			pctx, cancel := context.WithTimeout(ctx, probeLimit)
			defer cancel()
			o.cfg.Probe(pctx, id)
		})
	}
}

// judge says which records must change. Pure but for what was seen.
func (o *Observer) judge(ticks uint64, mine map[string]*api.Reach, missed map[string]bool) map[string]bool {
	now := o.cfg.Clock.Elapsed()
	out := map[string]bool{}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, s := range o.seen {
		rec := mine[name]
		switch {
		case s.bad >= lostCalls && now-s.badSince >= lostAfter && (rec == nil || rec.GetReachable()):
			out[name] = false
		case s.bad > 0 || !s.good || !missed[name]:
		case rec == nil && now-s.lastGood < lostAfter:
			out[name] = true // somebody wants to know
		case rec != nil && !rec.GetReachable() && now-s.since >= foundAfter && ticks-rec.GetSinceTick() >= foundTicks:
			out[name] = true
		}
	}
	return out
}

func (o *Observer) tell(ctx context.Context, name string, reachable bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reason := "the BMCs of " + name + " are not reached"
	if reachable {
		reason = "the BMCs of " + name + " are reached"
	}
	_, err := o.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + o.cfg.Member, Reason: reason, WallMs: o.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_ReachSet{ReachSet: &api.ReachSet{Member: o.cfg.Member, Subnet: name, Reachable: reachable}}}},
	})
	if err != nil {
		o.cfg.Logger.Debug("reach of a BMC subnet not recorded", "subnet", name, "reachable", reachable, "err", err)
		return
	}
	if reachable {
		o.cfg.Logger.Info("BMC subnet is reached", "subnet", name)
	} else {
		o.cfg.Logger.Warn("BMC subnet is not reached: its nodes go to peers that reach it, if there is one", "subnet", name)
	}
}
