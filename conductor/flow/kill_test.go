package flow

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/agentproto"
)

// ofWork says whether a command is one of a flow's, not of a lease.
func ofWork(cmd *api.Command) bool {
	switch cmd.GetOps()[0].GetOp().(type) {
	case *api.Op_LeaseRegister, *api.Op_LeaseRenew, *api.Op_LeaseRelease:
		return false
	}
	return true
}

// point is a moment at which a conductor is killed: around its n-th commit or
// around its n-th change at the BMC.
type point struct {
	change bool
	n      int
	after  bool // the commit is applied, the BMC has got the request
}

func (p point) String() string {
	what, when := "commit", "before"
	if p.change {
		what = "BMC change"
	}
	if p.after {
		when = "after"
	}
	return fmt.Sprintf("%s %s %d", when, what, p.n)
}

// killAt arms the kill of a peer.
func (r *rig) killAt(id string, at point) {
	peer := r.c.Peer(id)
	if at.change {
		n, passed := 0, 0
		r.setOnChange(func(who string, after bool) {
			if who != id {
				return
			}
			r.mu.Lock()
			var die bool
			if after {
				passed++
				die = at.after && passed == at.n
			} else {
				n++
				die = !at.after && n == at.n
			}
			r.mu.Unlock()
			if die {
				peer.Kill()
			}
		})
		return
	}
	var mu sync.Mutex
	n := 0
	peer.Decide(func(cmd *api.Command) conductortest.Fate {
		mu.Lock()
		defer mu.Unlock()
		if !ofWork(cmd) {
			return conductortest.Fate{}
		}
		if n++; n == at.n {
			return conductortest.Fate{Kill: true, Lose: at.after}
		}
		return conductortest.Fate{}
	})
}

// checkDeploy is what must hold after a deployment, whoever died on the way.
func (r *rig) checkDeploy(token uint64) {
	r.Helper()
	r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
	r.deployed()
	writes := r.machine.Begun(agentproto.CmdWriteImage)
	ids := map[string]bool{}
	for _, w := range writes {
		ids[w.GetCmdId()] = true
	}
	if len(writes) != 1 || len(ids) != 1 {
		r.Errorf("the image was written %d times, under %v", len(writes), ids)
	}
	if t := r.machine.Tokens(); !slices.IsSorted(t) {
		r.Errorf("the agent obeyed tokens %v", t)
	}
	r.checkCalls(token)
}

// checkCalls checks that the BMC never heard of an older token after a newer
// one, and gives the least time between the calls of two tokens.
func (r *rig) checkCalls(since uint64) (gap time.Duration) {
	r.Helper()
	gap = time.Hour
	var last fake.Call
	for _, c := range r.bmc.Calls() {
		if c.Verb != fake.SetPower && c.Verb != fake.SetBootDevice || c.Token <= since {
			continue
		}
		if c.Token < last.Token {
			r.Errorf("token %d acted after token %d", c.Token, last.Token)
		}
		if last.Token != 0 && c.Token > last.Token {
			gap = min(gap, c.Received.Sub(last.Received))
		}
		last = c
	}
	return gap
}

// deploys runs a deployment with conductors p1 and p2 of which p1 begins, with
// what arm does to it, and checks how it ends. properties say whether the agent
// of the clean is gone on with.
func deploys(t *testing.T, properties string, arm func(r *rig), checks ...func(r *rig, before uint64)) {
	t.Helper()
	inBubble(t, nil, func(r *rig) {
		r.properties = properties
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		before := r.node().GetLastToken()
		arm(r)
		r.begin(api.Event_EV_DEPLOY)
		r.idle(30 * time.Minute)
		r.checkDeploy(before)
		for _, check := range checks {
			check(r, before)
		}
	})
}

// The conductor that deploys is killed at each commit and each BMC change of
// the deployment, before and after it, whether the machine is booted or its
// agent is gone on with: another one always finishes it, with the image written
// once. What both ways have in common, from the inventory on, is killed before
// a commit in one way and after it in the other.
func TestKilledAtEachPoint(t *testing.T) {
	for _, way := range []struct {
		name, properties string
		changes          int
		after            bool // in what is common
	}{
		{"booted", bootsAnew, 5, false},
		{"reused", "{}", 3, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			commits, changes, common := 0, 0, 0
			deploys(t, way.properties, func(r *rig) {
				r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
					if ofWork(cmd) {
						commits++
						if d := lastDone(cmd); d != nil && d.GetCursor() == 4 { // agent.wait
							common = commits + 1
						}
					}
					return conductortest.Fate{}
				})
				r.setOnChange(func(_ string, after bool) {
					if after {
						changes++
					}
				})
			})
			if commits < 20 || changes != way.changes || common == 0 {
				t.Fatalf("a deployment has %d commits and %d changes; %d commits until the agent was there", commits, changes, common-1)
			}
			for n := 1; n <= commits; n++ {
				for _, after := range []bool{false, true} {
					if n < common || after == way.after {
						killedAt(t, way.properties, point{false, n, after})
					}
				}
			}
			for n := 1; n <= changes; n++ {
				for _, after := range []bool{false, true} {
					if n <= changes-3 || after == way.after { // off, boot from disk, on
						killedAt(t, way.properties, point{true, n, after})
					}
				}
			}
		})
	}
}

// lastDone is the end of a step that a command commits, or nil.
func lastDone(cmd *api.Command) (done *api.StepDone) {
	for _, op := range cmd.GetOps() {
		if d := op.GetStepDone(); d != nil {
			done = d
		}
	}
	return done
}

func killedAt(t *testing.T, properties string, at point) {
	t.Run(at.String(), func(t *testing.T) {
		deploys(t, properties, func(r *rig) { r.killAt("p1", at) }, func(r *rig, before uint64) {
			if r.alive("p1") {
				r.Error("it was not killed")
			}
			// An open intent: what was asked for may take effect for Q, after
			// the lease has expired at the earliest.
			const least = 12*time.Second + 2*time.Second + 10*time.Second - 2*time.Second
			if gap := r.checkCalls(before); at.change && gap < least {
				r.Errorf("the next conductor called %v after the last call, want at least %v", gap, least)
			}
		})
	})
}

// The conductor is killed while the agent writes: the next one follows the
// command that runs.
func TestKilledDuringWrite(t *testing.T) {
	deploys(t, "{}", func(r *rig) {
		var look func()
		look = func() {
			if len(r.machine.Begun(agentproto.CmdWriteImage)) == 0 {
				time.AfterFunc(time.Second, look)
			} else {
				time.AfterFunc(10*time.Second, r.c.Peer("p1").Kill)
			}
		}
		look()
	})
}

// Any mix of kills, restarts, lost answers, late answers and outages of the
// quorum ends in the same state.
func TestAnyTrouble(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		kills := rapid.SliceOfN(rapid.IntRange(1, 40), 0, 3).Draw(rt, "kills")
		after := rapid.SliceOfN(rapid.Bool(), 3, 3).Draw(rt, "after")
		rate := rapid.IntRange(0, 30).Draw(rt, "percent of lost answers")
		outage := rapid.IntRange(0, 90).Draw(rt, "seconds of outage")
		properties := rapid.SampledFrom([]string{"{}", bootsAnew}).Draw(rt, "properties")
		deploys(t, properties, func(r *rig) {
			var mu sync.Mutex
			x := seed | 1
			roll := func(n uint64) uint64 { // xorshift: the same for the same seed
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
				return x % n
			}
			n, next := 0, 0
			decide := func(cmd *api.Command) conductortest.Fate {
				mu.Lock()
				defer mu.Unlock()
				if !ofWork(cmd) {
					return conductortest.Fate{}
				}
				n++
				if next < len(kills) && n >= kills[next] {
					n = 0
					next++
					return conductortest.Fate{Kill: true, Lose: after[next-1]}
				}
				switch {
				case roll(100) < uint64(rate):
					return conductortest.Fate{Lose: true}
				case roll(100) < uint64(rate):
					return conductortest.Fate{Late: time.Duration(roll(3000)) * time.Millisecond}
				}
				return conductortest.Fate{}
			}
			for _, id := range []string{"p1", "p2"} {
				r.c.Peer(id).Decide(decide)
				r.restarts(id)
			}
			if outage > 0 {
				cut := func(cut bool) func() {
					return func() {
						for _, id := range []string{"p1", "p2"} {
							r.c.Peer(id).Cut(cut)
						}
					}
				}
				begin := time.Duration(10+seed%60) * time.Second
				time.AfterFunc(begin, cut(true))
				time.AfterFunc(begin+time.Duration(outage)*time.Second, cut(false))
			}
		})
	})
}

// restarts has a killed peer come back as a new process after a while.
func (r *rig) restarts(id string) {
	r.c.Peer(id).OnKill(func() {
		time.AfterFunc(5*time.Second, func() {
			r.mu.Lock()
			over := r.over
			r.mu.Unlock()
			if !over {
				r.start(id)
				r.restarts(id)
			}
		})
	})
}
