package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// TestLaws draws sequences of commands and checks after each entry what must
// hold of every sequence: the invariants I1, I2, I5 and I7 of docs/leases.md, that
// views never change, that a refused command changes nothing, and that a
// replica restored from a snapshot at any point goes on identically.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLaws(t)
		for range rapid.IntRange(1, 80).Draw(t, "entries") {
			l.step()
		}
	})
}

// laws is a store under test, replicas of it, and a model of tokens and
// intents.
type laws struct {
	t        *rapid.T
	s        *Store
	same     *Store // applies the same entries
	accepts  *Store // never sees the commands that were refused
	restored *Store // is thrown away and restored from a snapshot now and then
	index    uint64
	term     uint64
	fresh    int
	tokens   map[string]uint64 // highest of each node
	intents  map[string]uint64 // open seq of each node
}

func newLaws(t *rapid.T) *laws {
	l := &laws{t: t, s: New(), same: New(), accepts: New(), restored: New(), term: 5, tokens: map[string]uint64{}, intents: map[string]uint64{}}
	g := &gen{t: t, v: l.s.View(), term: l.term, fresh: &l.fresh}
	cmds := []*api.Command{
		{Meta: user, Ops: []*api.Op{{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "c1", Settings: testSettings()}}}}},
		{Meta: user, Ops: []*api.Op{memberSet("p0"), memberSet("p1"), memberSet("p2")}},
		{Meta: user, Ops: []*api.Op{register("l0", "p0", "m-p0", true), register("l1", "p1", "m-p1", true), register("l2", "p2", "m-p2", true)}},
		{Meta: user, Ops: []*api.Op{networkSet(testNetwork())}},
	}
	for i := range 2 {
		op := nodeCreate(nodeID(i), "")
		op.GetNodeCreate().Node.Assigned = g.member()
		cmds = append(cmds, &api.Command{Meta: user, Ops: []*api.Op{op, portCreate(uid(2, i), nodeID(i), mac(i))}})
	}
	l.apply(cmds)
	// Their BMCs are verified, so that intents can be opened.
	for do := range 3 {
		cmds = nil
		for i := range 2 {
			n := l.s.View().Node(nodeID(i))
			tok := n.GetLastToken()
			op := []*api.Op{
				acquire(n.GetId(), l.s.View().LiveLease(n.GetAssigned()).GetId()),
				{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: n.GetId(), Token: tok, Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{BmcKey: fmt.Sprint("b", i, " 443 /1")}}}}},
				release(n.GetId(), tok),
			}[do]
			cmds = append(cmds, &api.Command{Meta: user, Ops: []*api.Op{op}})
		}
		l.apply(cmds)
	}
	for i := range 2 {
		if n := l.s.View().Node(nodeID(i)); !node.Verified(n) || l.s.View().Lock(nodeID(i)) != nil {
			t.Fatalf("node %d to begin with: %v", i, n)
		}
	}
	return l
}

func (l *laws) step() {
	if rapid.IntRange(0, 9).Draw(l.t, "new term") == 9 {
		l.term++
	}
	g := &gen{t: l.t, v: l.s.View(), term: l.term, fresh: &l.fresh}
	var cmds []*api.Command
	for range rapid.IntRange(1, 3).Draw(l.t, "commands") {
		cmds = append(cmds, g.command())
	}
	l.apply(cmds)
	if rapid.IntRange(0, 9).Draw(l.t, "restore") == 9 {
		l.restore()
	}
}

func (l *laws) apply(cmds []*api.Command) {
	before := l.s.View()
	sum := before.Digest()
	l.index += 1 + uint64(rapid.IntRange(0, 1).Draw(l.t, "gap"))
	results := l.applyTo(l.s, cmds)
	if before.Digest() != sum {
		l.t.Fatalf("entry %d changed a record that an older view holds", l.index)
	}
	var good []*api.Command
	asked := map[string]bool{}
	for i, res := range results {
		if res.GetFailure() != nil {
			continue
		}
		good = append(good, cmds[i])
		id := cmds[i].GetMeta().GetRequestId()
		if id == "" || answerTo(before, id) == nil && !asked[id] { // else it is a stored answer
			l.accepted(cmds[i])
		}
		asked[id] = true
	}
	now, _ := l.s.Digest()
	if len(good) == 0 && now != sum {
		l.t.Fatalf("refused commands changed the state: %v", results)
	}
	l.applyTo(l.accepts, good)
	if d, _ := l.accepts.Digest(); d != now {
		l.t.Fatalf("entry %d: refused commands made a difference: %v", l.index, results)
	}
	for name, s := range map[string]*Store{"same log": l.same, "restored": l.restored} {
		theirs := l.applyTo(s, cmds)
		for i := range results {
			if !proto.Equal(results[i], theirs[i]) {
				l.t.Fatalf("%s: command %d answered %v, not %v", name, i, theirs[i], results[i])
			}
		}
		if d, index := s.Digest(); d != now || index != l.index {
			l.t.Fatalf("%s: another digest at %d", name, l.index)
		}
	}
	l.invariants()
}

func (l *laws) applyTo(s *Store, cmds []*api.Command) []*api.Result {
	b, err := proto.Marshal(&api.Entry{Commands: cmds})
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := s.Apply(l.index, l.term, b)
	if err != nil {
		l.t.Fatalf("apply %v: %v", cmds, err)
	}
	clear(b) // nothing may point into the log's memory
	return res
}

func (l *laws) restore() {
	var b bytes.Buffer
	n, err := l.s.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		l.t.Fatalf("snapshot: %d of %d bytes, %v", n, b.Len(), err)
	}
	l.restored = New()
	if err := l.restored.Restore(&b); err != nil {
		l.t.Fatal(err)
	}
	a, i := l.s.Digest()
	if c, k := l.restored.Digest(); a != c || i != k {
		l.t.Fatalf("restore(snapshot(s)) is not s")
	}
}

// accepted holds an accepted command against the model.
func (l *laws) accepted(cmd *api.Command) {
	for _, op := range cmd.GetOps() {
		switch o := op.GetOp().(type) {
		case *api.Op_NodeDelete:
			delete(l.intents, o.NodeDelete.GetNodeId())
		case *api.Op_IntentOpen:
			id := o.IntentOpen.GetNodeId()
			if seq, ok := l.intents[id]; ok {
				l.t.Fatalf("I5: an intent was opened on %s while %d is open", id, seq)
			}
			l.intents[id] = 0 // its seq is known from the state, below
		case *api.Op_IntentClose:
			id := o.IntentClose.GetNodeId()
			if _, ok := l.intents[id]; !ok {
				l.t.Fatalf("I5: an intent was closed on %s though none is open", id)
			}
			delete(l.intents, id)
		}
		id, token, ok := tokenOf(op)
		if ok && token < l.tokens[id] {
			l.t.Fatalf("I2: %v was accepted after token %d", op, l.tokens[id])
		}
	}
}

// tokenOf is the token that an operation is written under.
func tokenOf(op *api.Op) (node string, token uint64, ok bool) {
	switch o := op.GetOp().(type) {
	case *api.Op_StepStart:
		return o.StepStart.GetNodeId(), o.StepStart.GetToken(), true
	case *api.Op_StepDone:
		return o.StepDone.GetNodeId(), o.StepDone.GetToken(), true
	case *api.Op_FlowRewind:
		return o.FlowRewind.GetNodeId(), o.FlowRewind.GetToken(), true
	case *api.Op_FlowEnd:
		return o.FlowEnd.GetNodeId(), o.FlowEnd.GetToken(), true
	case *api.Op_NodeWrite:
		return o.NodeWrite.GetNodeId(), o.NodeWrite.GetToken(), true
	case *api.Op_InventorySet:
		return o.InventorySet.GetInventory().GetNodeId(), o.InventorySet.GetToken(), true
	case *api.Op_IntentOpen:
		return o.IntentOpen.GetNodeId(), o.IntentOpen.GetToken(), true
	case *api.Op_IntentClose:
		return o.IntentClose.GetNodeId(), o.IntentClose.GetToken(), true
	case *api.Op_LockRelease:
		return o.LockRelease.GetNodeId(), o.LockRelease.GetToken(), true
	case *api.Op_LockBreak:
		return o.LockBreak.GetNodeId(), o.LockBreak.GetToken(), true
	}
	return "", 0, false
}

// invariants are what must hold of every state.
// machines holds what indexes find against all nodes one by one: no two verified
// nodes have one machine or one BMC, and whose a machine is is found by whatever
// mark it tells.
func (l *laws) machines(check func(ok bool, format string, args ...any)) {
	v := l.s.View()
	for n := range v.Nodes() {
		shared := false
		for o := range v.Nodes() {
			f, g := n.GetBmc(), o.GetBmc()
			if n.GetId() == o.GetId() || f == nil || g == nil || f.GetBmcKey() != g.GetBmcKey() && node.Compare(f, g) != node.SameMachine {
				continue
			}
			shared = true
			check(!node.Verified(n) || !node.Verified(o), "two nodes are verified with one machine: %v, %v", f, g)
		}
		check(n.GetBmc() == nil || shared == (v.NodeWithBMC(n.GetBmc(), n.GetId()) != nil), "whose the machine is, %v: %v", n.GetBmc(), v.NodeWithBMC(n.GetBmc(), n.GetId()))
	}
}

func (l *laws) invariants() {
	v := l.s.View()
	check := func(ok bool, format string, args ...any) {
		if !ok {
			l.t.Fatalf("at %d: %s", l.index, fmt.Sprintf(format, args...))
		}
	}
	l.machines(check)
	count, ids := 0, map[string]bool{}
	for n := range v.Nodes() {
		id := n.GetId()
		count++
		ids[id] = true
		check(n.GetLastToken() >= l.tokens[id] || n.GetLastToken() == 0, "I1: token of %s fell from %d to %d", id, l.tokens[id], n.GetLastToken())
		l.tokens[id] = max(l.tokens[id], n.GetLastToken())
		if k := v.Lock(id); k != nil {
			check(k.GetToken() == n.GetLastToken(), "I1: %v is not under the last token %d", k, n.GetLastToken())
			check(v.Lease(k.GetLeaseId()).GetState() == api.Lease_LIVE && v.Lease(k.GetLeaseId()) != nil, "%v of a lease that is not live", k)
			check(k.GetConductor() == n.GetAssigned(), "%v but the owner is %s", k, n.GetAssigned())
		}
		busy := node.Transient(n.GetState()) || node.Held(n.GetState())
		check(!busy || running(v.Flow(id)), "%s is %v without a flow", id, n.GetState())
		check(node.Transient(n.GetState()) == (n.GetStateDeadlineTick() != 0), "deadline of %v", n)
		check(n.GetName() == "" || v.NodeByName(n.GetName()).GetId() == id, "two nodes are called %q", n.GetName())
		check(len(v.History(id)) > 0, "node %s has no past", id)
	}
	check(count == v.NodeCount(), "%d nodes are counted as %d", count, v.NodeCount())
	for k := range v.Locks() {
		check(ids[k.GetNodeId()], "lock without a node: %v", k)
	}
	homes := map[string]bool{}
	for f := range v.RunningFlows() {
		home := string(f.GetPhoneHomeDigest())
		check(home == "" || !homes[home] && v.FlowOfPhoneHome(f.GetPhoneHomeDigest()) == f, "two flows wait for one phone-home token: %v", f)
		homes[home] = true
		check(ids[f.GetNodeId()], "flow without a node: %v", f)
		check(!f.GetStarted() || int(f.GetCursor()) < len(f.GetSteps()), "a step after the last was started: %v", f)
	}
	open := 0
	for i := range scan(v.txn, intents, byID) {
		open++
		seq, ok := l.intents[i.GetNodeId()]
		check(ok && (seq == 0 || seq == i.GetSeq()), "I5: intent %v was not opened", i)
		l.intents[i.GetNodeId()] = i.GetSeq()
	}
	check(open == len(l.intents), "I5: an intent was lost: %v", l.intents)
	live := map[string]bool{}
	for le := range v.Leases() {
		if le.GetState() == api.Lease_LIVE {
			check(!live[le.GetConductor()], "two live leases of %s", le.GetConductor())
			live[le.GetConductor()] = true
		}
	}
	for _, m := range v.Members() {
		check(len(m.GetKeyDigest()) == 0 || v.Former(m.GetId(), m.GetKeyDigest()) == nil, "a former member is one again: %v", m)
	}
	artifactInvariants(v, check)
	given := map[string]bool{}
	for a := range v.Addresses() {
		check(v.PortByMAC(a.GetMac()).GetNodeId() == a.GetNodeId() && v.Network(a.GetNetwork()) != nil, "stray address %v", a)
		check(v.Network(a.GetNetwork()).GetMode() == api.DHCPMode_DHCP_FULL, "address %v beside a foreign server", a)
		check(!given[a.GetNetwork()+a.GetIp()], "address %v was given twice", a)
		given[a.GetNetwork()+a.GetIp()] = true
	}
	for p := range v.Ports() {
		check(ids[p.GetNodeId()] && v.PortByMAC(p.GetAddress()) == p, "stray port %v", p)
	}
}
