// Package conductortest is a cluster without Raft for tests of the conductor:
// one replicated state, peers that propose to it with faults on demand, the
// real duties of a leader, and machines that do what firmware and agent do.
//
// It is not for tests of package cluster: entries are applied at once, in one
// order, and every peer sees them at the same moment.
//
// Invariants: a command is applied whole or not at all, also when its answer
// is lost; a peer that was killed proposes nothing any more.
//
// Concurrency: everything may be used by any goroutine. Nothing sleeps but on
// timers, so that all of it may run inside a testing/synctest bubble.
//
// Start with New, then Peer.Propose and Machine.
package conductortest
