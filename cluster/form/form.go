// Package form decides which of several equal peers founds their cluster: the
// single-decree Paxos protocol, as values. Durable storage, the network and
// patience are the caller's (package cluster, forming.go).
//
// Invariants, whatever is lost, repeated, late, or killed:
//   - At most one Founder is ever chosen, if any two quorums have an acceptor
//     in common and what an Acceptor returns is on disk before it is sent.
//   - Who is chosen stays chosen.
//
// Each peer is an acceptor, named by the random instance of its data
// directory: a directory that was emptied is another acceptor. The proof
// sketch is in docs/adr/0014.
//
// Nothing here is safe for concurrent use. Start at Acceptor, then Round.
package form

import (
	"cmp"
	"slices"
	"strings"
)

// Founder is a peer that may found the cluster: an id, and the data directory
// that it had when it was proposed.
type Founder struct {
	ID       string `json:"id"`
	Instance string `json:"instance"`
}

// Ballot numbers an attempt. No two attempts have the same: N is larger than
// every one that its driver has promised, and By is the driver's instance.
type Ballot struct {
	N  uint64 `json:"n"`
	By string `json:"by"`
}

// Compare orders ballots.
func (b Ballot) Compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.N, o.N), strings.Compare(b.By, o.By))
}

// Acceptor is what one peer must not forget. Its new value must be on disk
// before the answer is sent.
type Acceptor struct {
	Self     Founder `json:"self"`
	Promised Ballot  `json:"promised"` // takes part in nothing before it
	Accepted Ballot  `json:"accepted"` // zero: nothing accepted
	Value    Founder `json:"value"`    // accepted
}

// Promise is the answer to a first question.
type Promise struct {
	OK       bool    `json:"ok"`
	Self     Founder `json:"self"`
	Promised Ballot  `json:"promised"`
	Accepted Ballot  `json:"accepted"`
	Value    Founder `json:"value"`
}

// Prepare promises to take part in nothing before a ballot.
func (a Acceptor) Prepare(b Ballot) (Acceptor, Promise) {
	ok := b.Compare(a.Promised) >= 0
	if ok {
		a.Promised = b
	}
	return a, Promise{OK: ok, Self: a.Self, Promised: a.Promised, Accepted: a.Accepted, Value: a.Value}
}

// Accept takes a founder, unless a later ballot has been promised.
func (a Acceptor) Accept(b Ballot, v Founder) (Acceptor, bool) {
	if b.Compare(a.Promised) < 0 {
		return a, false
	}
	a.Promised, a.Accepted, a.Value = b, b, v
	return a, true
}

// Round is one attempt of one driver; it is lost with the process.
type Round struct {
	Ballot   Ballot
	Quorum   int // acceptors that must agree: more than half of all there are
	promises map[string]Promise
	accepted map[string]bool
	value    *Founder
}

// NewRound begins an attempt. The driver must itself be an acceptor and must
// have promised the ballot, on disk, so that it never uses it again.
func NewRound(b Ballot, quorum int) *Round {
	return &Round{Ballot: b, Quorum: quorum, promises: map[string]Promise{}, accepted: map[string]bool{}}
}

// Promised counts a promise. With a quorum of them the founder to propose is
// known and does not change any more: the one of the latest accepted ballot,
// or the one with the smallest id of those who promised.
func (r *Round) Promised(p Promise) (Founder, bool) {
	if p.OK && r.value == nil {
		r.promises[p.Self.Instance] = p
	}
	if r.value == nil && len(r.promises) >= r.Quorum {
		v := r.choose()
		r.value = &v
	}
	if r.value == nil {
		return Founder{}, false
	}
	return *r.value, true
}

func (r *Round) choose() Founder {
	var last Promise
	var all []Founder
	for _, p := range r.promises {
		all = append(all, p.Self)
		if p.Accepted.Compare(last.Accepted) > 0 {
			last = p
		}
	}
	if last.Accepted.N > 0 {
		return last.Value
	}
	return slices.MinFunc(all, func(a, b Founder) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Instance, b.Instance))
	})
}

// Accepted counts an acceptance of what Promised gave; true when the founder
// is chosen.
func (r *Round) Accepted(instance string) (Founder, bool) {
	if r.value == nil {
		return Founder{}, false
	}
	r.accepted[instance] = true
	return *r.value, len(r.accepted) >= r.Quorum
}
