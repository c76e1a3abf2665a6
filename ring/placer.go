package ring

// Placer gives owners to nodes one at a time: to those that are being created,
// where a whole Plan would be too much. It counts loads as Plan does, so that
// Plan has no reason to move what a Placer placed.
//
// It is made for one set of members and fed with every change of an
// assignment; it is cheap to make again when the members change. Not for
// concurrent use.
type Placer struct {
	l *layout
}

// NewPlacer makes a Placer without nodes. The version must pass CheckVersion.
func NewPlacer(members []Member) *Placer {
	return &Placer{newLayout(members)}
}

// Add counts a node with its owner.
func (p *Placer) Add(n Node) {
	if pool := p.l.class(&n).pool; pool != nil {
		pool.nodes++
		if o := p.l.owner(&n); o >= 0 {
			pool.load[o]++
		}
	}
}

// Remove takes back what Add or Place counted; n.Owner is the owner of then.
func (p *Placer) Remove(n Node) {
	if pool := p.l.class(&n).pool; pool != nil && pool.nodes > 0 {
		pool.nodes--
		if o := p.l.owner(&n); o >= 0 && pool.load[o] > 0 {
			pool.load[o]--
		}
	}
}

// Place finds an owner for a node, whatever its Owner says, and counts it.
// Without a candidate the owner is "" and reason says why.
func (p *Placer) Place(n Node) (owner, reason string) {
	c := p.l.class(&n)
	if c.pool == nil {
		return "", c.reason
	}
	c.pool.nodes++
	to := c.pool.place(p.l.members, hashNode(n.ID))
	c.pool.load[to]++
	return p.l.members[to].ID, ""
}
