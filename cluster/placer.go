package cluster

import (
	"reflect"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

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

// place returns the commands with an owner for each node that they create.
func (p *placer) place(batch []*proposal) [][]byte {
	out, ready := make([][]byte, len(batch)), false
	for i, c := range batch {
		out[i] = c.raw
		if len(c.nodes) == 0 {
			continue
		}
		if !ready {
			p.look()
			ready = true
		}
		owners := make([]string, len(c.nodes))
		for j, n := range c.nodes {
			owners[j] = p.owner(n)
		}
		out[i] = withOwners(c.raw, owners)
	}
	return out
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

func (p *placer) owner(n ring.Node) string {
	if p.ring == nil {
		return ""
	}
	owner, _ := p.ring.Place(n) // Assign records why there is none
	return owner
}

// newNodes are the nodes that a command creates, in order.
func newNodes(cmd *api.Command) (nodes []ring.Node) {
	for _, op := range cmd.GetOps() {
		if o, ok := op.GetOp().(*api.Op_NodeCreate); ok {
			nodes = append(nodes, duties.Node(o.NodeCreate.GetNode()))
		}
	}
	return nodes
}

// Numbers of the fields on the way from a command to the owner of a new node.
const (
	opsOfCommand     protowire.Number = 2
	createOfOp       protowire.Number = 1
	nodeOfCreate     protowire.Number = 1
	assignedOfNode   protowire.Number = 60
	ownerFrameLength                  = 16 // of the tags and lengths around a name
)

// withOwners sets the owners of the nodes that a marshalled command creates,
// without decoding it. Of a field that comes twice a reader takes the last
// value, and merges messages: so the owner is written behind each operation.
func withOwners(raw []byte, owners []string) []byte {
	out := make([]byte, 0, len(raw)+len(owners)*(ownerFrameLength+16))
	for len(raw) > 0 && len(owners) > 0 {
		num, typ, n := protowire.ConsumeField(raw)
		if n < 0 {
			break
		}
		field := raw[:n]
		raw = raw[n:]
		if num == opsOfCommand && typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(field)
			op, _ := protowire.ConsumeBytes(field[tag:])
			if first, _, m := protowire.ConsumeTag(op); m > 0 && first == createOfOp {
				var node, create []byte
				node = protowire.AppendString(protowire.AppendTag(node, assignedOfNode, protowire.BytesType), owners[0])
				create = protowire.AppendBytes(protowire.AppendTag(create, nodeOfCreate, protowire.BytesType), node)
				extra := protowire.AppendBytes(protowire.AppendTag(nil, createOfOp, protowire.BytesType), create)
				owners = owners[1:]
				out = protowire.AppendVarint(protowire.AppendTag(out, opsOfCommand, protowire.BytesType), uint64(len(op)+len(extra)))
				out = append(append(out, op...), extra...)
				continue
			}
		}
		out = append(out, field...)
	}
	return append(out, raw...)
}
