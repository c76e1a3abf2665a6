package cluster

import (
	"reflect"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/ring"
)

// placerLife is how long counts are used before they are taken anew from the
// state: until then only the placer's own nodes are added.
const placerLife = 5 * time.Second

// placer gives new nodes their owner before they are proposed, so that nobody
// ever sees a node without one. Only the committer's goroutine uses it.
type placer struct {
	store   *fsm.Store
	ring    *ring.Placer
	members []ring.Member
	made    time.Time
}

func newPlacer(s *fsm.Store) *placer { return &placer{store: s} }

// place returns the commands with an owner in each NodeCreate. What cannot be
// decoded is left to Apply.
func (p *placer) place(commands [][]byte) [][]byte {
	ready := false
	for i, raw := range commands {
		if !createsNode(raw) {
			continue
		}
		if !ready {
			p.look()
			ready = true
		}
		var cmd api.Command
		if proto.Unmarshal(raw, &cmd) != nil {
			continue
		}
		for _, op := range cmd.GetOps() {
			if n := op.GetNodeCreate().GetNode(); n != nil {
				n.Assigned = p.owner(n)
			}
		}
		if with, err := proto.Marshal(&cmd); err == nil {
			commands[i] = with
		}
	}
	return commands
}

// look takes the members, and now and then the counts, from the state.
func (p *placer) look() {
	v := p.store.View()
	if v.Settings() == nil || ring.CheckVersion(v.Settings().GetRingVersion()) != nil {
		p.ring = nil
		return
	}
	members := duties.Members(v, nil, nil)
	if p.ring != nil && time.Since(p.made) <= placerLife && reflect.DeepEqual(members, p.members) {
		return
	}
	p.ring, p.members, p.made = ring.NewPlacer(members), members, time.Now()
	for n := range v.Nodes() {
		p.ring.Add(duties.Node(n))
	}
}

func (p *placer) owner(n *api.Node) string {
	if p.ring == nil {
		return ""
	}
	owner, _ := p.ring.Place(duties.Node(n)) // Assign records why there is none
	return owner
}

// createsNode looks for a NodeCreate without decoding the command: field 2 of
// Command is an Op, field 1 of Op is a NodeCreate.
func createsNode(raw []byte) bool {
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return false
		}
		raw = raw[n:]
		if num == 2 && typ == protowire.BytesType {
			op, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return false
			}
			if first, _, m := protowire.ConsumeTag(op); m > 0 && first == 1 {
				return true
			}
		}
		if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
			return false
		}
		raw = raw[n:]
	}
	return false
}
