// Package duties is what the leader does beyond committing what others ask
// for: it moves the cluster clock, expires leases, ends quarantines, breaks
// locks that outlive their limits, assigns nodes to owners, raises the feature
// level, and keeps Raft's servers in line with the members.
//
// It is not for anything that must survive a change of leaders: all it
// remembers is when it saw something, on its own elapsed clock, and a new
// leader starts every such wait anew. That can only lengthen a wait.
//
// Invariants:
//   - Every command carries the term in which the duties began; Apply refuses
//     it in any other term.
//   - A lease is expired only if its renew_seq did not change for its full
//     length, as this leader saw it, and only under that seq.
//   - Wall time decides nothing here.
//
// Concurrency: Run starts one goroutine for each duty; they share nothing but
// the store. Start with Run, then fences.go.
package duties

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Server is one entry of Raft's configuration.
type Server struct {
	ID      string
	Address string
	Voter   bool
}

// Voters changes Raft's configuration. Calls block until the change is
// committed or leadership is lost.
type Voters interface {
	Servers() ([]Server, error)
	LastIndex() uint64
	AddNonvoter(id, address string) error
	AddVoter(id, address string) error
	Demote(id string) error // the vote goes, the server stays
	Remove(id string) error
}

// Config of one leadership; all fields are required.
type Config struct {
	Self    string // this peer's member id
	Term    uint64
	Store   *fsm.Store
	Propose func(context.Context, *api.Command) (*api.Result, error) // through this peer only
	Clock   clock.Clock
	Logger  *slog.Logger
	Voters  Voters
	Probe   func(ctx context.Context, id string) (*api.PeerInfoReply, error) // how far a peer is
	// PromoteAfter is how long a server must have been caught up to get a vote.
	PromoteAfter time.Duration
	// ReplaceAfter is how long a voter must have been silent before a server that
	// is alive gets a vote in its stead.
	ReplaceAfter time.Duration
	Keys         KeyMaker
}

// Periods of the scans. scanPeriod is s of condition C5 in docs/leases.md.
const (
	scanPeriod  = 200 * time.Millisecond
	lockPeriod  = 500 * time.Millisecond
	tickPeriod  = time.Second
	voterPeriod = 250 * time.Millisecond
	slowPeriod  = 5 * time.Second
)

// proposeTimeout bounds one command of a duty; the next scan tries again.
const proposeTimeout = 5 * time.Second

// Run does the duties until the context ends, which it must when leadership
// does. It returns nil then; errors are not expected.
func Run(ctx context.Context, cfg Config) error {
	g, ctx := errgroup.WithContext(ctx)
	run := func(period time.Duration, d duty) {
		g.Go(func() error { return every(ctx, period, d) })
	}
	run(tickPeriod, newTicker(cfg))
	run(scanPeriod, newFences(cfg))
	run(lockPeriod, newLocks(cfg))
	run(tickPeriod, newKeys(cfg))
	run(voterPeriod, newServers(cfg))
	run(slowPeriod, &features{cfg})
	run(slowPeriod, newArtifacts(cfg))
	g.Go(func() error { return newAssigner(cfg).run(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// duty is something that is looked at again and again. An error is logged, and
// the next round tries again.
type duty interface {
	name() string
	round(context.Context) error
}

func every(ctx context.Context, period time.Duration, d duty) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	log := loggerOf(d)
	for {
		if err := d.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errs.NotLeader) {
			log.Warn("a duty of the leader failed, will try again", "duty", d.name(), "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func loggerOf(d duty) *slog.Logger {
	if l, ok := d.(interface{ logger() *slog.Logger }); ok {
		return l.logger()
	}
	return slog.New(slog.DiscardHandler)
}

func (c Config) logger() *slog.Logger { return c.Logger }

// propose commits operations of a duty as one command.
func (c Config) propose(ctx context.Context, reason string, ops ...*api.Op) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := c.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "system", Reason: reason, WallMs: c.Clock.Now().UnixMilli()},
		Ops:  ops,
	})
	return err
}

// overtaken reports whether a command was refused because the state had
// already moved on, which is how races with the state end.
func overtaken(err error) bool {
	for _, k := range []errs.Kind{errs.Conflict, errs.Fenced, errs.NotFound, errs.Locked} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

func ms(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
