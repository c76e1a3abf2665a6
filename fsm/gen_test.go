package fsm

import (
	"crypto/sha256"
	"fmt"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// gen draws commands that are plausible in the state that a view shows, and
// some that are not.
type gen struct {
	t     *rapid.T
	v     *View
	term  uint64
	fresh *int // numbers of identities that were never used
}

func (g *gen) n(most int, label string) int { return rapid.IntRange(0, most).Draw(g.t, label) }

// rarely is true in one case of eight.
func (g *gen) rarely(label string) bool { return g.n(7, label) == 7 }

func (g *gen) next() int { *g.fresh++; return *g.fresh }

func (g *gen) id() string     { return nodeID(g.n(2, "node")) }
func (g *gen) mac() string    { return mac(g.n(5, "mac")) }
func (g *gen) member() string { return fmt.Sprint("p", g.n(2, "member")) }

// memberKey is the digest of a member's key pair, of a few.
func (g *gen) memberKey() []byte {
	key := sha256.Sum256([]byte{byte(g.n(2, "key pair"))})
	return key[:]
}

func (g *gen) name() string { return []string{"", "a", "b", "c"}[g.n(3, "name")] }

func (g *gen) wrongTerm() uint64 {
	if g.rarely("wrong term") {
		return g.term - 1
	}
	return g.term
}

// lease is mostly a live one.
func (g *gen) lease() string {
	var live, all []string
	for l := range g.v.Leases() {
		all = append(all, l.GetId())
		if l.GetState() == api.Lease_LIVE {
			live = append(live, l.GetId())
		}
	}
	if len(live) > 0 && !g.rarely("any lease") {
		return live[g.n(len(live)-1, "live lease")]
	}
	if len(all) > 0 {
		return all[g.n(len(all)-1, "lease")]
	}
	return "none"
}

// token is mostly the current one of a node.
func (g *gen) token(id string) uint64 {
	tok := g.v.Node(id).GetLastToken()
	if g.rarely("wrong token") {
		return tok - uint64(g.n(2, "behind")) + 1
	}
	return tok
}

func (g *gen) event() api.Event {
	if g.n(2, "any event") > 0 {
		return api.Event_EVENT_NONE
	}
	evs := []api.Event{api.Event_EVENT_NONE, api.Event_EV_WAIT, api.Event_EV_RESUME, api.Event_EV_DONE, api.Event_EV_FAIL, api.Event_EV_CLEAN, api.Event_EV_ABORT}
	return evs[g.n(len(evs)-1, "event")]
}

func (g *gen) flow() *api.Flow {
	f := &api.Flow{Id: fmt.Sprint("flow", g.next()), Kind: api.FlowKind(1 + g.n(5, "kind")), Args: []byte(`{}`)}
	for i := range 1 + g.n(2, "steps") {
		f.Steps = append(f.Steps, &api.Step{
			Name: fmt.Sprint("s", i), Policy: api.ResumePolicy(1 + g.n(3, "policy")), HoldLimitMs: 1000,
		})
	}
	if f.Kind == api.FlowKind_FLOW_DEPLOY && g.n(1, "phones home") == 1 {
		last := f.Steps[len(f.Steps)-1]
		last.Interface, last.Name = node.StepEvidence.Interface, node.StepEvidence.Name
		f.PhoneHomeDigest = g.home()
	}
	return f
}

// facts are those of one of a few machines behind a few BMCs, which tell more or
// less of it.
func (g *gen) facts(id string) *api.BmcFacts {
	f := &api.BmcFacts{BmcKey: fmt.Sprintf("b%d 443 /1", g.n(3, "bmc")), DriverRev: g.v.Node(id).GetDriverRev()}
	if g.rarely("asked before") {
		f.DriverRev--
	}
	m := g.n(2, "machine")
	if g.n(1, "tells UUID") == 1 {
		f.SystemUuid = []string{"4c4c4544-0035-4d10-8032-b4c04f4a3332", "44454c4c-3500-104d-8032-b4c04f4a3332", "00000000-0000-0000-0000-000000000000"}[m]
	}
	if g.n(1, "tells serial number") == 1 {
		f.Serial = []string{"S-17", " s-18", "To be filled by O.E.M."}[m]
	}
	if g.n(1, "tells MACs") == 1 {
		f.BmcMacs = []string{[]string{"52:54:00:00:01:01", "52-54-00-00-01-02", "00:00:00:00:00:00"}[m]}
	}
	return f
}

// home is the digest of a phone-home token.
func (g *gen) home() []byte {
	return node.PhoneHomeDigest([]string{"t", "u"}[g.n(1, "phone-home token")])
}

// at is where a node's flow is, or thereabouts.
func (g *gen) at(id string) (flow string, cursor, attempt uint32) {
	f := g.v.Flow(id)
	flow, cursor, attempt = f.GetId(), f.GetCursor(), f.GetAttempt()
	if g.rarely("elsewhere") {
		cursor += uint32(g.n(1, "cursor off"))
		attempt += uint32(g.n(1, "attempt off"))
	}
	return flow, cursor, attempt
}

func (g *gen) doc() []byte {
	return []byte(fmt.Sprintf(`{"v":%d}`, g.n(9, "doc")))
}

// command draws a whole command.
func (g *gen) command() *api.Command {
	cmd := &api.Command{Meta: &api.Meta{
		Principal: []string{"client:a", "peer:p1", "system"}[g.n(2, "principal")], Source: "unix", Reason: "drawn",
		WallMs: int64(g.n(1000, "wall")),
	}}
	if g.rarely("incomplete") {
		*[]*string{&cmd.Meta.Principal, &cmd.Meta.Source, &cmd.Meta.Reason}[g.n(2, "which")] = ""
	}
	if g.rarely("request id") {
		cmd.Meta.RequestId = fmt.Sprint("r", g.n(5, "request"))
	}
	for range 1 + g.n(2, "ops")*g.n(1, "many") {
		cmd.Ops = append(cmd.Ops, g.op())
	}
	return cmd
}

func (g *gen) op() *api.Op {
	switch g.n(6, "group") {
	case 6:
		return g.artifactOp()
	case 0:
		return g.recordOp()
	case 1, 2:
		return g.flowOp()
	case 3, 4:
		return g.lockOp()
	}
	return g.clusterOp()
}

func (g *gen) recordOp() *api.Op {
	switch g.n(9, "record op") {
	case 0, 1:
		op := nodeCreate(g.id(), g.name())
		op.GetNodeCreate().Node.Assigned = g.member()
		return op
	case 2, 3:
		all := append([]string{"last_error"}, node.SpecFields...)
		fields := []string{all[g.n(len(all)-1, "field")], all[g.n(len(all)-1, "field")]}
		n := &api.Node{
			Name: g.name(), Driver: "fake", DriverInfo: g.doc(), Extra: g.doc(), Maintenance: g.rarely("maintenance"),
			Protected: g.rarely("protected"), Description: "d",
		}
		op := nodePatch(g.id(), n, fields...)
		op.GetNodePatch().Rev = uint64(g.n(3, "rev"))
		return op
	case 4:
		return nodeDelete(g.id())
	case 5:
		return portCreate(uid(2, g.n(5, "port")), g.id(), g.mac())
	case 6:
		if g.n(1, "certificate") == 1 {
			return &api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{
				NodeId: g.id(), How: api.BmcTrust_How(g.n(3, "how")), Address: []string{"", "b:443", "c:443", "d:443"}[g.n(3, "address")],
				Fingerprint: []string{fpA, fpB}[g.n(1, "fingerprint")],
			}}}
		}
		return &api.Op{Op: &api.Op_PortDelete{PortDelete: &api.PortDelete{PortId: uid(2, g.n(5, "port"))}}}
	case 7:
		n := testNetwork()
		n.Rev = g.v.Network(n.Name).GetRev()
		n.RangeEnd = fmt.Sprint("10.77.0.", 4+g.n(3, "end"))
		if g.rarely("foreign server") {
			n.Mode, n.RangeStart, n.RangeEnd = api.DHCPMode_DHCP_PROXY, "", ""
			n.Peers = []*api.PeerAddress{{Peer: "p1", Address: "192.0.2.11"}}
		}
		return networkSet(n)
	case 8:
		if !g.rarely("delete network") {
			return allocate("prov", g.mac())
		}
		return &api.Op{Op: &api.Op_NetworkDelete{NetworkDelete: &api.NetworkDelete{Name: "prov"}}}
	}
	return allocate("prov", g.mac())
}

func (g *gen) flowOp() *api.Op {
	id := g.id()
	tok := g.token(id)
	flow, cursor, attempt := g.at(id)
	if g.rarely("phone home") {
		return &api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: id, Digest: g.home(), Source: "192.0.2.9"}}}
	}
	switch g.n(14, "flow op") {
	case 0, 1, 2:
		op := &api.FlowCreate{NodeId: id, Flow: g.flow(), DeadlineMs: uint64(g.n(5, "deadline"))}
		if verbs := node.Allowed(g.v.Node(id).GetState()); len(verbs) > 0 {
			op.Event = verbs[g.n(len(verbs)-1, "verb")]
		}
		if g.rarely("no flow") {
			op.Flow = nil
		}
		return &api.Op{Op: &api.Op_FlowCreate{FlowCreate: op}}
	case 3:
		return &api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: id, Event: g.event(), Rev: uint64(g.n(3, "rev"))}}}
	case 4, 5:
		return &api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{
			NodeId: id, Token: tok, FlowId: flow, Cursor: cursor, Attempt: attempt + 1, CmdId: "c", Event: g.event(), Incarnation: "i",
		}}}
	case 6, 7:
		return &api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{
			NodeId: id, Token: tok, FlowId: flow, Cursor: cursor, Attempt: attempt, Result: g.doc(), Event: g.event(),
			PowerOns: uint32(g.n(2, "power-ons")),
		}}}
	case 8:
		return &api.Op{Op: &api.Op_FlowRewind{FlowRewind: &api.FlowRewind{
			NodeId: id, Token: tok, FlowId: flow, Cursor: cursor, Attempt: attempt, To: uint32(g.n(2, "to")), Reason: "r",
		}}}
	case 9:
		op := &api.FlowEnd{NodeId: id, Token: tok, FlowId: flow, Status: api.FlowStatus(g.n(3, "status")), Error: "e", Event: g.event()}
		if g.n(1, "as the status says") == 0 {
			op.Event = api.Event_EV_FAIL
			if op.Status == api.FlowStatus_FLOW_DONE {
				op.Event = api.Event_EV_DONE
			}
		}
		if g.n(1, "next flow") == 1 {
			op.Next = g.flow()
		}
		return &api.Op{Op: &api.Op_FlowEnd{FlowEnd: op}}
	case 10:
		n := &api.Node{
			PowerState: api.PowerState(g.n(2, "power")), LastError: "x",
			Evidence: &api.Evidence{Policy: "phone_home", PhoneHomeDigest: g.v.Flow(id).GetPhoneHomeDigest(), FlowId: flow},
			Boot:     &api.Boot{Target: api.BootTarget(g.n(2, "target")), Nonce: fmt.Sprint("n", g.n(2, "nonce"))},
		}
		fields := node.FlowFields
		return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: tok, Node: n, Fields: []string{fields[g.n(len(fields)-1, "field")], "boot"}}}}
	case 11:
		if g.n(1, "observe") == 0 {
			return &api.Op{Op: &api.Op_InventorySet{InventorySet: &api.InventorySet{Token: tok, Inventory: &api.Inventory{NodeId: id, Json: g.doc()}}}}
		}
		return &api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{
			NodeId: id, AssignEpoch: g.v.Node(id).GetAssignEpoch(), Fields: []string{"power_state"}, Node: &api.Node{PowerState: 1},
		}}}
	}
	if g.n(2, "facts") > 0 {
		return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: tok, Node: &api.Node{Bmc: g.facts(id)}, Fields: []string{"bmc"}}}}
	}
	key := sha256.Sum256([]byte{byte(g.n(1, "key"))})
	return &api.Op{Op: &api.Op_AgentEnrol{AgentEnrol: &api.AgentEnrol{NodeId: id, Session: &api.AgentSession{
		Nonce: fmt.Sprint("n", g.n(2, "nonce")), KeyDigest: key[:],
	}}}}
}

func (g *gen) lockOp() *api.Op {
	id := g.id()
	tok := g.token(id)
	switch g.n(11, "lock op") {
	case 0, 1, 2:
		lease := g.lease()
		if l := g.v.LiveLease(g.v.Node(id).GetAssigned()); l != nil && !g.rarely("another's lease") {
			lease = l.GetId()
		}
		return acquire(id, lease)
	case 3:
		return release(id, tok)
	case 4, 5:
		return &api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{NodeId: id, Token: tok, Kind: "power_on"}}}
	case 6, 7:
		return &api.Op{Op: &api.Op_IntentClose{IntentClose: &api.IntentClose{NodeId: id, Token: tok, Seq: g.v.Intent(id).GetSeq()}}}
	case 8:
		return &api.Op{Op: &api.Op_LockBreak{LockBreak: &api.LockBreak{NodeId: id, Token: tok, Term: g.wrongTerm()}}}
	case 9, 10:
		q := g.v.Node(id).GetQuarantine()
		return &api.Op{Op: &api.Op_QuarantineClear{QuarantineClear: &api.QuarantineClear{
			NodeId: id, Class: q.GetClass(), FenceIndex: q.GetFenceIndex(), Term: g.wrongTerm(),
		}}}
	}
	lease := g.lease()
	return renew(lease, uint64(g.n(9, "seq")), tok)
}

func (g *gen) clusterOp() *api.Op {
	if g.rarely("keys") {
		return g.keysOp()
	}
	if g.rarely("reach") {
		subnet := []string{"10.1.2.0/24", "2001:db8::/64", "10.1.2.3/24", "x"}[g.n(3, "subnet")]
		return &api.Op{Op: &api.Op_ReachSet{ReachSet: &api.ReachSet{Member: g.member(), Subnet: subnet, Reachable: g.n(1, "reachable") == 1}}}
	}
	switch g.n(12, "cluster op") {
	case 0, 1, 2:
		m := g.member()
		reg := register(fmt.Sprint("lease", g.next()), m, "m-"+m, !g.rarely("no directory lock"))
		digest := sha256.Sum256([]byte("s"))
		reg.GetLeaseRegister().Lease.GuardDigest = digest[:]
		return reg
	case 3:
		lease := g.lease()
		return expire(lease, g.v.Lease(lease).GetRenewSeq(), g.wrongTerm())
	case 4:
		return tombstone(g.lease(), "s")
	case 5:
		return &api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: g.lease(), Cause: "unresponsive", Term: g.wrongTerm()}}}
	case 6:
		return &api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: g.lease()}}}
	case 7:
		op := memberSet(g.member())
		op.GetMemberSet().Member.FormKey = formKey(g.n(2, "form key"))
		if g.n(1, "with a key") == 1 {
			op.GetMemberSet().Member.KeyDigest = g.memberKey()
		}
		return op
	case 8:
		if !g.rarely("remove member") {
			return memberSet(g.member())
		}
		return &api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: g.member(), SpendFormKeys: g.n(1, "by an operator") == 1}}}
	case 9, 10:
		id := g.id()
		return assignTo(id, g.member(), g.v.Node(id).GetAssignEpoch()+1, g.wrongTerm())
	case 11:
		if g.rarely("raise epoch") {
			return &api.Op{Op: &api.Op_RestoreEpochRaise{RestoreEpochRaise: &api.RestoreEpochRaise{Epoch: g.v.Globals().GetRestoreEpoch() + 1}}}
		}
		secret := sha256.Sum256([]byte("s"))
		id := fmt.Sprint("t", g.n(2, "token"))
		if g.n(1, "consume") == 1 {
			return &api.Op{Op: &api.Op_TokenConsume{TokenConsume: &api.TokenConsume{Id: id, SecretDigest: secret[:], KeyDigest: g.memberKey(), MemberId: g.member()}}}
		}
		return &api.Op{Op: &api.Op_TokenCreate{TokenCreate: &api.TokenCreate{Token: &api.JoinToken{Id: id, SecretDigest: secret[:], ExpiresMs: 500, FormKey: formKey(g.n(2, "form key"))}}}}
	}
	return tick(uint64(g.n(20_000, "ms")), g.wrongTerm())
}
