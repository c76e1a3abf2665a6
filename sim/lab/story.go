package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	nodes "github.com/ironring/ironring/node"
)

// storyLimit bounds the whole story, so that a lab that hangs says so.
const storyLimit = 10 * time.Minute

// story enrols, inspects, cleans and deploys every machine and reports.
func (l *lab) story(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, storyLimit)
	defer cancel()
	rep := &Report{Peers: len(l.peers), Nodes: len(l.nodes)}
	w := &watcher{lab: l, rep: rep, hit: map[string]bool{}}
	failed := map[string]error{}
	var mu sync.Mutex
	for _, act := range []struct {
		said string
		verb api.Event
		want api.State
	}{
		{"verified", api.Event_EV_MANAGE, api.State_MANAGEABLE},
		{"inspected", api.Event_EV_INSPECT, api.State_MANAGEABLE},
		{"cleaned (metadata only, data remains)", api.Event_EV_PROVIDE, api.State_AVAILABLE},
		{"deployed", api.Event_EV_DEPLOY, api.State_ACTIVE},
	} {
		var all sync.WaitGroup
		for _, n := range l.nodes {
			if failed[n.name] != nil {
				continue
			}
			all.Go(func() {
				if err := w.drive(ctx, n, act.verb, act.want); err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed[n.name] = err
					l.say("%s: %v", n.name, err)
				}
			})
		}
		all.Wait()
		l.say("%d of %d %s", len(l.nodes)-len(failed), len(l.nodes), act.said)
	}
	l.finish(ctx, rep, w, failed)
	return rep, nil
}

// watcher follows the nodes, and kills a peer when the moment has come.
type watcher struct {
	lab *lab
	rep *Report

	mu     sync.Mutex
	killed *peer
	at     time.Time
	hit    map[string]bool // nodes that the killed peer was working on; false once resumed
}

// drive fires a verb at a node and waits for the state.
func (w *watcher) drive(ctx context.Context, n *node, verb api.Event, want api.State) error {
	req := &api.ProvisionRequest{Node: n.name, Verb: verb}
	if verb == api.Event_EV_DEPLOY {
		args, err := json.Marshal(map[string]string{"image": w.lab.images.url(n.name), "checksum": w.lab.images.checksum})
		if err != nil {
			return err
		}
		req.Args = args
		n.written = n.machine.Stats().Written
	}
	reply, err := w.lab.client.Provision(ctx, req)
	if err != nil {
		return err
	}
	_, err = w.lab.client.Wait(ctx, n.name, client.Until{State: want, After: reply.GetIndex()}, func(ev *api.NodeEvent) {
		if verb == api.Event_EV_DEPLOY {
			w.see(n, ev)
		}
	})
	var work *client.WorkFailed
	if errors.As(err, &work) || err == nil {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return errs.New(errs.KindOf(err), "%s was stopped early", nodes.VerbName(verb))
	}
	return errs.New(errs.KindOf(err), "%s: %w", nodes.VerbName(verb), err)
}

// see looks at one event of a deploying node.
func (w *watcher) see(n *node, ev *api.NodeEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	holder := ev.GetLock().GetConductor()
	if w.killed != nil {
		if w.hit[n.name] && holder != "" && holder != w.killed.id {
			w.hit[n.name] = false
			took := time.Since(w.at).Seconds()
			w.rep.TakeoverSeconds = append(w.rep.TakeoverSeconds, round(took))
			w.lab.say("%s: %s took over from %s after %.1f s", n.name, holder, w.killed.id, took)
		}
		return
	}
	p := ev.GetProgress()
	if !w.lab.opts.Kill || holder == "" || p.GetPercent() < 20 || p.GetPercent() > 60 || p.GetStep() != "deploy.write_image" {
		return
	}
	for _, victim := range w.lab.peers {
		if victim.id == holder {
			w.kill(victim, n, p.GetPercent())
			return
		}
	}
}

// kill kills the holder of a deploying node. Called with mu held.
func (w *watcher) kill(victim *peer, n *node, percent float64) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, o := range w.lab.nodes {
		reply, err := w.lab.client.GetNode(ctx, &api.GetNodeRequest{Node: o.name})
		if err == nil && reply.GetLock().GetConductor() == victim.id {
			w.hit[o.name] = true
		}
	}
	w.hit[n.name] = true
	how, end := "killed %s (kill -9)", victim.kill
	if w.lab.opts.Term {
		how, end = "stopped %s (SIGTERM)", victim.term
	}
	w.killed, w.at = victim, time.Now()
	w.rep.Killed = 1
	w.lab.say(how+" while %s was at %.0f %% of its image; it held %d nodes", victim.id, n.name, percent, len(w.hit))
	end()
}

// finish looks at the machines themselves: what the records say is not enough.
func (l *lab) finish(ctx context.Context, rep *Report, w *watcher, failed map[string]error) {
	for _, n := range l.nodes {
		row := Row{Node: n.name, Served: l.images.served(n.name), Ramdisks: n.machine.Stats().RamdiskRuns}
		if err := failed[n.name]; err != nil {
			row.Problem = err.Error()
		}
		reply, err := l.client.GetNode(ctx, &api.GetNodeRequest{Node: n.name})
		if err != nil {
			row.Problem = err.Error()
		} else {
			f := reply.GetFlow()
			row.Driver = reply.GetNode().GetDriver()
			row.State, row.Owner, row.Takeovers = reply.GetNode().GetState(), reply.GetNode().GetAssigned(), int(f.GetTakeovers())
			row.PowerOns = int(f.GetPowerOns())
			for _, s := range f.GetSteps() {
				if extra := int(s.GetStarts()) - 1 - int(f.GetRewinds()); extra > 0 {
					rep.RestartedSteps += extra
				}
			}
			row.check(ctx, l, n)
		}
		if row.State == api.State_ACTIVE && row.Problem == "" {
			rep.Active++
		} else {
			rep.Failed++
		}
		rep.Rows = append(rep.Rows, row)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, waiting := range w.hit {
		if !waiting {
			rep.Resumed++
		}
	}
	rep.Missed = l.opts.Kill && rep.Killed == 0
	rep.Seconds = round(time.Since(l.start).Seconds())
}

// bootLimit is how long a machine that was switched on may take to come up from
// its disk: the node is active a moment before.
const bootLimit = 30 * time.Second

// check compares the machine with what it should be.
func (r *Row) check(ctx context.Context, l *lab, n *node) {
	if r.State != api.State_ACTIVE || r.Problem != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	for n.machine.Stats().DiskBoots == 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	stats := n.machine.Stats()
	switch {
	case stats.Marker != l.images.marker:
		r.Problem = fmt.Sprintf("the machine did not boot the image: boot sector %q", stats.Marker)
	case r.Served != int64(len(l.images.body)):
		r.Problem = fmt.Sprintf("the image has %d bytes, %d were fetched", len(l.images.body), r.Served)
	case stats.Written-n.written > uint64(len(l.images.body)+clearedEnds):
		r.Problem = fmt.Sprintf("the image has %d bytes, %d were written to the disk: more than once", len(l.images.body), stats.Written-n.written)
	case !sameBytes(n.machine.DiskPath(0), l.images.body):
		r.Problem = "the disk does not hold the image"
	}
}

// clearedEnds is what the agent writes besides the image: zeros at both ends of
// the disk.
const clearedEnds = 2 << 20

func sameBytes(path string, want []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // read only
	got := make([]byte, len(want))
	_, err = f.ReadAt(got, 0)
	return err == nil && string(got) == string(want)
}
