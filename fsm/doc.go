// Package fsm is the replicated state: the records of the cluster, the
// commands that change them, queries, watches, snapshots and a digest. It is
// pure: time, randomness and identities arrive inside the commands.
//
// It is not for deciding what should be done (conductor, cluster), nor for
// rules that may change between versions without all peers agreeing: what
// Apply refuses is part of the replicated format.
//
// Invariants:
//   - The same entries at the same indexes give the same state (Digest) on
//     every peer, wherever a snapshot and restore came between.
//   - A command is applied whole or not at all. A refused command changes
//     nothing but the index.
//   - At most one lock a node; its token is larger than every earlier one of
//     that node, and nothing is accepted under another token.
//   - An intent opens only when none is open, and is closed by its opener or
//     by a later holder of the lock once the quarantine is cleared.
//   - Decisions use Globals.ticks only. Wall time is stored for display; the
//     one exception is the expiry of join tokens.
//   - Apply never panics on bad input. It returns an error only for what must
//     stop the process: an entry that this build does not understand in full.
//
// How a command stays atomic: an entry is one memdb write transaction. Each
// command works on an overlay (work.go): records are cloned into it on first
// change and reads look there first. Only when every operation of the command
// was accepted does the overlay go into the transaction; a refused command
// never touched it. There is no undo.
//
// Concurrency: Apply and Restore are serialised by the Store. A View is a
// consistent, lock-free picture; any number may be used at any time, by any
// number of goroutines. Records that a View or Result hands out are shared and
// must not be modified: clone first.
//
// Start at store.go, then apply.go; the operations are in apply_*.go.
package fsm
