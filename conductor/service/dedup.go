package service

import (
	"slices"

	"github.com/ironring/ironring/api"
)

// dedupWindow is how far out of order copies of a peer's events may come.
const dedupWindow = 4096

// dedup knows which events have been sent, in bounded memory: for each peer
// that saw them the newest numbers. An event older than all of these counts as
// sent. Not for concurrent use.
type dedup struct {
	peers  map[string]*recent
	window int
}

// recent is the newest numbers of one peer.
type recent struct {
	has   map[uint64]bool
	order []uint64 // rising
	floor uint64   // what is not above it was forgotten
}

func newDedup(window int) *dedup { return &dedup{peers: map[string]*recent{}, window: window} }

// fresh says whether an event has not been seen before, and notes it.
func (d *dedup) fresh(ev *api.JournalEvent) bool {
	r := d.peers[ev.GetPeer()]
	if r == nil {
		r = &recent{has: map[uint64]bool{}}
		d.peers[ev.GetPeer()] = r
	}
	seq := ev.GetSeq()
	if seq <= r.floor || r.has[seq] {
		return false
	}
	r.has[seq] = true
	i, _ := slices.BinarySearch(r.order, seq)
	r.order = slices.Insert(r.order, i, seq)
	if len(r.order) > d.window {
		r.floor = r.order[0]
		delete(r.has, r.floor)
		r.order = slices.Delete(r.order, 0, 1)
	}
	return true
}
