package ring

// Shares is the part of the ring, 0 to 1, that each member has among the
// members of its conductor group that can own nodes now. The shares of a group
// add up to 1; members that receive nothing have 0. Drivers are not looked at.
func Shares(members []Member) map[string]float64 {
	l := newLayout(members)
	shares := make(map[string]float64, len(members))
	groups := map[string][]bool{}
	for i, m := range l.members {
		shares[m.ID] = 0
		if groups[m.Group] == nil {
			groups[m.Group] = make([]bool, len(l.members))
		}
		groups[m.Group][i] = m.Ready && !m.Lost
	}
	for _, candidates := range groups {
		ring := points(l.members, l.newPool(candidates).weight)
		for i, pt := range ring {
			before := ring[(i+len(ring)-1)%len(ring)].hash
			if arc := pt.hash - before; len(ring) > 1 { // wraps at the first point
				shares[l.members[pt.member].ID] += float64(arc) / (1 << 64)
			}
		}
	}
	return shares
}
