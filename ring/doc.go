// Package ring decides which member of the cluster owns which node: a
// consistent hash ring with weights and bounded loads, sticky, pure.
//
// It is for the leader's duties alone: the leader computes, the log stores the
// result (Assign), nobody recomputes it. It knows neither leases nor Raft; the
// caller turns those into the flags of Member and Node.
//
// Candidates of a node are the members that are ready and not lost, of the
// node's conductor group, with its driver. Members that are known not to reach
// the subnet of its BMC are none as long as another one is known to reach it.
// Of these, those of its zone when there are any. Nodes with the same candidates share a pool. In a pool a member's cap is
//
//	ceil(1.10 * nodes of the pool * weight / sum of the receivers' weights)
//
// and a node that needs an owner goes clockwise from its hash to the first
// receiver below its cap. Receivers are the candidates that are stable and have
// a weight; that is a preference, dropped when nobody would be left.
//
// Invariants:
//   - Plan depends on the sets of members and nodes, not on their order.
//   - A node whose owner is a candidate below or at its cap does not move.
//   - A pinned node moves only when its owner is lost or unknown.
//   - A lost member's idle nodes stay with it until LostLong, so that a restart
//     costs no move; nodes with work, or with new work, move at once.
//   - Once its moves are made, Plan has no more; with enough voluntary moves
//     and no pinned nodes every receiver is at or below its cap.
//   - What the hash function and the points are is fixed by Version.
//
// Plan and Shares may be called concurrently; a Placer may not. Start at Plan.
package ring
