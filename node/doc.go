// Package node is the life of a bare-metal machine as data: the states, the
// verbs, the one table of transitions between them, and the rules for the
// fields of a node's record. It knows nothing of storage, network or time.
//
// Invariants:
//   - A transition that is not in Table does not exist.
//   - The five groups Stable, Failed, Held, Working and Waiting divide the
//     states. Transient is Working or Waiting: somebody works on the node, so
//     it has an owner, a deadline (Deadline) and an edge for EV_FAIL.
//   - Every state has a wire name (that of Ironic) and every verb a name;
//     both round-trip.
//   - Each field of api.Node that anyone may write is named in exactly one of
//     SpecFields and FlowFields; ObserveFields is a part of FlowFields.
//
// Everything here is pure and may be called concurrently; the exported slices
// must not be modified. Start at Table in table.go; the diagram in
// docs/lifecycle.md is generated from it.
package node

//go:generate go test -run=^TestLifecycleDoc$ . -update
