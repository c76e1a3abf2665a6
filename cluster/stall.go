package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// stallSteps is how many ticks make up the limit of a stall.
const stallSteps = 10

// stallWatch looks after a leader that commits nothing although entries wait.
//
//   - Its own disk does not return from a write: the process ends. Raft keeps
//     such a leader for as long as its heartbeats go out, and nobody else could
//     take over.
//   - Its disk is well, but the others do not store: it stays, refuses what is
//     new with the reason, and goes on when they do. It gives its leadership
//     away once, if enough of them look well from here.
//
// It counts its own ticks, so that a host that slept is not taken for a hang.
type stallWatch struct {
	committer *committer
	disk      *disk
	limit     time.Duration
	fatal     func(error)
	log       *slog.Logger
	// voters says whether a majority of voters, another one among them, could
	// store, and who cannot.
	voters func(context.Context) (quorum bool, missing string)

	write   uint64 // the one that hangs
	hanging int    // ticks
	commit  uint64
	still   int  // ticks since the commit index moved
	gave    bool // leadership was to be given away in this stall
}

func (c *Cluster) newStallWatch(cm *committer) *stallWatch {
	return &stallWatch{committer: cm, disk: c.storage.disk, limit: c.cfg.CommitStall, fatal: c.hangs, log: c.log, voters: c.votersNow}
}

func (w *stallWatch) run(ctx context.Context) {
	tick := time.NewTicker(w.limit / stallSteps)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.hangs() {
			w.fatal(errs.New(errs.Internal, "a write of this leader to its log did not return for %v: is the disk that holds %s hanging?", w.limit, w.disk.path))
			return
		}
		w.look(ctx)
	}
}

// hangs reports whether a write of this leader has been under way for the limit.
func (w *stallWatch) hangs() bool {
	n := w.disk.pending()
	if n == 0 || n != w.write || w.committer.raft.State() != raft.Leader {
		w.write, w.hanging = n, 0
		return false
	}
	w.hanging++
	return w.hanging >= stallSteps
}

// look refuses what is new once nothing was committed for the limit, until
// something is.
func (w *stallWatch) look(ctx context.Context) {
	at, c := w.committer.raft.CommitIndex(), w.committer
	if c.waiting.Load() == 0 || at != w.commit || c.raft.State() != raft.Leader {
		if c.stalled.Swap(nil) != nil {
			w.log.Info("entries are committed again, or another peer leads")
		}
		w.still, w.commit, w.gave = 0, at, false
		return
	}
	if w.still++; w.still%stallSteps != 0 || w.disk.pending() != 0 {
		return
	}
	quorum, missing := w.voters(ctx)
	err := errs.New(errs.NoQuorum, "the leader cannot commit: %s", missing)
	if c.stalled.Swap(&err) == nil {
		w.log.Warn("this leader commits nothing although entries wait; changes are refused until that is over", "missing", missing)
	}
	c.refuse(errs.New(errs.NoQuorum, "nothing was done: %w", err))
	if quorum && !w.gave {
		w.gave = true
		c.raft.LeadershipTransfer() // nobody waits for it: whether it works shows by itself
	}
}

// hangs ends this peer without waiting for its disk, or for Raft.
func (c *Cluster) hangs(err error) {
	c.hungOnce.Do(func() { close(c.hung) }) // before the end begins: it looks
	c.fatal(err)
}

func (c *Cluster) isHung() bool {
	select {
	case <-c.hung:
		return true
	default:
		return false
	}
}

// votersNow asks all voters how they are.
func (c *Cluster) votersNow(ctx context.Context) (quorum bool, missing string) {
	s := &api.ClusterStatusReply{Peers: c.peerStatus(c.store.View(), nil)}
	c.progress(ctx, s)
	var all []string
	able, _ := votersOf(s)
	for _, p := range s.GetPeers() {
		if reason, _ := inability(p); p.GetVoter() && reason != "" {
			all = append(all, fmt.Sprintf("%s: %s", p.GetMember().GetId(), reason))
		}
	}
	if len(all) == 0 {
		all = []string{"all voters answer, but too few store what they are sent"}
	}
	return len(able) > 1 && hasQuorum(s), strings.Join(all, ", ")
}

// stalled is why this peer, as the leader, commits nothing; nil when it does.
func (c *Cluster) stalled() error {
	if cm := c.committer.Load(); cm != nil {
		if err := cm.stalled.Load(); err != nil {
			return *err
		}
	}
	return nil
}
