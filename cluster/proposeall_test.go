package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// Commands that are proposed together have outcomes of their own, in order,
// through the leader and through others, and nothing is done twice.
func TestProposeAll(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{Configure: calm})
	k.WaitLeader()
	const many = 300 // more than an entry takes
	for _, p := range k.Peers() {
		var cmds []*api.Command
		for i := range many {
			cmds = append(cmds, command(fmt.Sprint(p.ID, "-", i), createNode(fmt.Sprint(p.ID, "-", i-i%10/9)))) // every tenth has the name of the one before
		}
		cmds = append(cmds, &api.Command{Ops: cmds[0].GetOps()}) // without a reason
		for round, out := range [][]cluster.Outcome{p.ProposeAll(within(t, 20*time.Second), cmds), p.ProposeAll(within(t, 20*time.Second), cmds)} {
			if len(out) != len(cmds) {
				t.Fatalf("%d outcomes of %d commands", len(out), len(cmds))
			}
			for i, o := range out {
				switch {
				case i == many:
					if !errors.Is(o.Err, errs.Invalid) {
						t.Errorf("%s, a command without a reason: %v", p.ID, o)
					}
				case i%10 >= 8: // one of two has the name, the other has not
					if last := out[i-i%10+8]; i%10 == 9 && errors.Is(o.Err, errs.Exists) == errors.Is(last.Err, errs.Exists) {
						t.Errorf("%s, %d: of two nodes with one name: %v and %v", p.ID, i, last.Err, o.Err)
					}
				case o.Err != nil:
					t.Errorf("%s, round %d, command %d: %v", p.ID, round, i, o.Err)
				case o.Result.GetOps()[0].GetId() != cmds[i].GetOps()[0].GetNodeCreate().GetNode().GetId():
					t.Errorf("%s: the outcome of command %d is another's: %v", p.ID, i, o.Result)
				}
			}
		}
		if n := p.Store().View().NodeByName(p.ID + "-0"); n == nil {
			t.Errorf("%s does not read its own writes", p.ID)
		}
	}
	if n := k.Peer("p1").Store().View().NodeCount(); n != 3*(many-many/10) {
		t.Errorf("there are %d nodes", n)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, o := range k.Peer("p1").ProposeAll(ended, []*api.Command{command("", createNode("a")), command("", createNode("b"))}) {
		if o.Err == nil {
			t.Errorf("a context that had ended: %v", o)
		}
	}
}
