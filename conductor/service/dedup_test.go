package service

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
)

// Whatever comes, in any order and however often, nothing is let through
// twice, memory is bounded, and what is not older than the window is let
// through once.
func TestDedup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const window = 8
		d, sent := newDedup(window), map[uint64]bool{}
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			seq := rapid.Uint64Range(1, 60).Draw(t, "seq")
			fresh := d.fresh(&api.JournalEvent{Peer: "p1", Seq: seq})
			if fresh && sent[seq] {
				t.Fatalf("%d came through twice", seq)
			}
			above := 0
			for s := range sent {
				if s > seq {
					above++
				}
			}
			if !fresh && !sent[seq] && above < window {
				t.Fatalf("%d was held back although only %d newer ones had come", seq, above)
			}
			if fresh {
				sent[seq] = true
			}
			if r := d.peers["p1"]; len(r.order) > window || len(r.has) != len(r.order) {
				t.Fatalf("%d numbers are kept", len(r.order))
			}
		}
	})
}
