// Package lease keeps the lease of this conductor process: the right to hold
// locks and to act on machines.
//
// Rules (they make takeover safe; the numbers are api.Timing):
//
//   - The holder counts its validity from the moment it *sent* a renewal that
//     was then committed, never from the acknowledgement.
//   - While the deadline lies ahead the gate is open. A closed gate cancels the
//     context of everything that runs under it, at once.
//   - A closed gate is not a lost lease: the next committed renewal opens a new
//     gate, and the flow engine resumes its own locks.
//   - A fenced lease is lost. All work must have drained before a new lease is
//     registered; if it has not in ten seconds, the process must exit.
//   - A peer that commits but no longer applies, such as one whose disk is full,
//     keeps no lease: others would wait for it for ever. After a lease's length
//     without a confirmed renewal it renews only once it has caught up.
//   - A jump of the wall clock of more than a second closes the gate until the
//     next committed renewal: a frozen host does not count in CLOCK_BOOTTIME
//     under every hypervisor.
//
// Concurrency: Run owns the state; Current and the methods of Gate may be
// called from anywhere.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Proposer commits commands.
type Proposer interface {
	Propose(ctx context.Context, cmd *api.Command) (*api.Result, error)
}

// Config of a Keeper. All fields but GuardDigest are required.
type Config struct {
	Proposer    Proposer
	Member      string // this peer's member id
	MachineID   string
	BootID      string
	GuardDigest []byte
	Timing      func() *api.Timing // the cluster's, read at each registration
	// Fresh returns nil once this peer has applied what the leader had
	// committed. It is asked before a lease is registered, and before one is
	// renewed that had no confirmed renewal for its whole length. nil: not asked.
	Fresh  func(ctx context.Context) error
	Clock  clock.Clock
	Logger *slog.Logger
}

// drainLimit is how long work may go on after its gate was closed.
const (
	drainLimit = 10 * time.Second
	drainPoll  = 100 * time.Millisecond
)

// freshLimit bounds the question whether this peer keeps up before a lease is
// registered.
const freshLimit = 2 * time.Second

// checkEvery is how often deadline and wall clock are looked at: a gate closes
// at most so late.
const checkEvery = 100 * time.Millisecond

// jumpLimit is how far the wall clock may run from the elapsed time between
// two looks.
const jumpLimit = time.Second

// Keeper registers and renews the lease.
type Keeper struct {
	cfg         Config
	incarnation string

	mu    sync.Mutex
	gate  *Gate         // guarded by mu; the open gate, nil while closed
	turn  chan struct{} // guarded by mu; closed and replaced whenever gate changes
	wall  time.Time     // guarded by mu; the clocks at the last look
	mono  time.Duration // guarded by mu
	jumps int           // guarded by mu; of the wall clock: a renewal that saw one opens no gate
}

// New makes a keeper; Run makes it work.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, incarnation: uuid.NewString(), turn: make(chan struct{})}
}

// Current is the open gate, or nil.
func (k *Keeper) Current() *Gate {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gate
}

// Wait blocks until a gate is open and returns it.
func (k *Keeper) Wait(ctx context.Context) (*Gate, error) {
	for {
		k.mu.Lock()
		g, turn := k.gate, k.turn
		k.mu.Unlock()
		if g != nil {
			return g, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-turn:
		}
	}
}

// Run keeps the lease until ctx ends, then releases it: by then all work under
// its gate must have ended, which Run waits for. An error means that the
// process must exit, because work under a closed gate did not end.
func (k *Keeper) Run(ctx context.Context) error {
	var checking sync.WaitGroup
	defer checking.Wait()
	cctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	k.look()
	checking.Go(func() {
		for sleep(cctx, checkEvery, nil) == nil {
			k.look()
		}
	})
	for {
		id, timing, sent, err := k.register(ctx)
		if err != nil {
			return nil // only ctx ends registration
		}
		last := k.open(id, timing, sent)
		cause := k.renew(ctx, id, timing, &last)
		k.shut(last, cause)
		if err := last.drain(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			k.release(id)
			return nil
		}
		k.cfg.Logger.Warn("lease lost: work is resumed under a new one", "lease", id, "err", cause)
	}
}

// register commits a new lease; it tries until ctx ends. All tries carry one
// id: a try that is committed late must not fence the lease of another.
func (k *Keeper) register(ctx context.Context) (id string, t *api.Timing, sent time.Duration, err error) {
	delay, begun := 200*time.Millisecond, time.Duration(0)
	told := ""
	for {
		if now := k.cfg.Timing(); id == "" || !proto.Equal(now, t) {
			id, t, begun = uuid.NewString(), now, k.cfg.Clock.Elapsed()
		}
		if t.GetLeaseMs() > 0 && k.fresh(ctx, freshLimit) {
			jumps := k.look()
			sent = k.cfg.Clock.Elapsed()
			pctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err = k.cfg.Proposer.Propose(pctx, k.command("register the conductor's lease", &api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{
				DirectoryLock: true,
				Lease: &api.Lease{
					Id: id, Conductor: k.cfg.Member, Incarnation: k.incarnation,
					MachineId: k.cfg.MachineID, BootId: k.cfg.BootID,
					GuardDigest: k.cfg.GuardDigest, Timing: t,
				},
			}}}))
			cancel()
			if errors.Is(err, errs.Exists) { // by an earlier try: it counts from the first
				sent, err = begun, nil
			}
			if err == nil {
				if k.look() != jumps { // who knows how long ago: the first renewal counts
					sent -= ms(t.GetHolderMs())
				}
				k.cfg.Logger.Info("lease registered", "lease", id)
				return id, t, sent, nil
			}
			if text := err.Error(); errors.Is(err, errs.Conflict) && text != told {
				k.cfg.Logger.Warn("lease not registered yet: does another process run with this member's identity?", "err", err)
				told = text
			} else {
				k.cfg.Logger.Debug("lease not registered yet", "err", err)
			}
		}
		if err := sleep(ctx, delay, nil); err != nil {
			return "", nil, 0, err
		}
		delay = min(2*delay, 2*time.Second)
	}
}

// renew renews until the lease is lost or ctx ends, and says why it stopped.
// *last is replaced when a closed gate opens again.
func (k *Keeper) renew(ctx context.Context, id string, t *api.Timing, last **Gate) error {
	period, rpc := ms(t.GetRenewMs()), ms(t.GetRpcMs())
	confirmed := k.cfg.Clock.Elapsed()
	for seq := uint64(1); ; seq++ {
		g := *last
		// A gate that closes or has drained is a reason to renew at once.
		wake := g.Done()
		if g.closed() {
			wake = g.idle
			if g.drained() {
				wake = nil
			}
		}
		if err := sleep(ctx, period, wake); err != nil {
			return err
		}
		if k.cfg.Clock.Elapsed()-confirmed > ms(t.GetLeaseMs()) && !k.fresh(ctx, rpc) {
			if err := g.stuck(); err != nil {
				return err
			}
			continue
		}
		jumps := k.look()
		progressed := g.takeProgress()
		sent := k.cfg.Clock.Elapsed()
		pctx, cancel := context.WithTimeout(ctx, rpc)
		_, err := k.cfg.Proposer.Propose(pctx, k.command("renew the lease", &api.Op{Op: &api.Op_LeaseRenew{LeaseRenew: &api.LeaseRenew{
			LeaseId: id, Seq: seq, Progressed: progressed,
		}}}))
		cancel()
		// The answer may have been on its way for long, or the host frozen
		// meanwhile: look before it counts. What was sent before a jump may be
		// older than the elapsed clock knows.
		trusted := k.look() == jumps
		if err == nil {
			confirmed = sent
		}
		switch {
		case err == nil && g.extend(sent):
		case err == nil:
			// The old work must be gone before the same locks are resumed.
			if g.drained() && trusted && sent+ms(t.GetHolderMs()) > k.cfg.Clock.Elapsed() {
				*last = k.open(id, t, sent)
				k.cfg.Logger.Info("gate opened again", "lease", id)
			}
		case errors.Is(err, errs.Fenced) || errors.Is(err, errs.NotFound):
			return err
		default: // unknown: keep the old deadline, try again with a higher seq
			g.putBack(progressed)
			k.cfg.Logger.Debug("renewal not confirmed", "lease", id, "seq", seq, "err", err)
		}
		if err := g.stuck(); err != nil {
			return err
		}
	}
}

// look closes the gate when its deadline has passed or the wall clock has
// jumped, and gives how often that has been.
func (k *Keeper) look() (jumps int) {
	wall, mono := k.cfg.Clock.Now().Round(0), k.cfg.Clock.Elapsed()
	k.mu.Lock()
	g := k.gate
	var drift time.Duration
	if !k.wall.IsZero() {
		drift = wall.Sub(k.wall) - (mono - k.mono)
	}
	k.wall, k.mono = wall, mono
	jumped := drift > jumpLimit || drift < -jumpLimit
	if jumped {
		k.jumps++
	}
	jumps = k.jumps
	k.mu.Unlock()
	switch {
	case g == nil:
	case jumped:
		k.shut(g, fmt.Errorf("the wall clock jumped by %v", drift.Round(time.Millisecond)))
	case g.deadlineIn() <= 0:
		k.shut(g, errors.New("the lease could not be renewed in time"))
	}
	return jumps
}

// fresh asks whether this peer keeps up with the cluster.
func (k *Keeper) fresh(ctx context.Context, limit time.Duration) bool {
	if k.cfg.Fresh == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := k.cfg.Fresh(ctx)
	if err != nil {
		k.cfg.Logger.Debug("this peer does not keep up: no lease", "err", err)
	}
	return err == nil
}

func (k *Keeper) release(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := k.cfg.Proposer.Propose(ctx, k.command("orderly stop", &api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: id}}})); err != nil {
		k.cfg.Logger.Warn("lease not released: it will expire", "lease", id, "err", err)
	}
}

func (k *Keeper) open(id string, t *api.Timing, sent time.Duration) *Gate {
	g := newGate(id, t, sent, k.cfg.Clock)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setLocked(g)
	return g
}

// shut closes a gate; closing a closed one does nothing.
func (k *Keeper) shut(g *Gate, cause error) {
	k.mu.Lock()
	if k.gate == g {
		k.setLocked(nil)
	}
	k.mu.Unlock()
	if g.close(cause) && !errors.Is(cause, context.Canceled) {
		k.cfg.Logger.Warn("gate closed", "lease", g.Lease, "err", cause)
	}
}

func (k *Keeper) setLocked(g *Gate) {
	k.gate = g
	close(k.turn)
	k.turn = make(chan struct{})
}

func (k *Keeper) command(reason string, op *api.Op) *api.Command {
	return &api.Command{
		Meta: &api.Meta{Principal: "peer:" + k.cfg.Member, Reason: reason, WallMs: k.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{op},
	}
}

func ms(v uint64) time.Duration { return time.Duration(v) * time.Millisecond }

// sleep waits for d or for wake, whichever comes first; it fails when ctx ends.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
	return ctx.Err()
}
