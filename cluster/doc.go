// Package cluster makes N processes one: Raft, gossip, join and leave, the
// commit pipeline, forwarding to the leader, reads at an index, and the duties
// of the leader (package duties below it).
//
// It is not for anything about machines: what is proposed and what is read is
// the business of its callers.
//
// Invariants:
//   - What Propose returned without an error is applied on the answering peer.
//   - A proposal whose outcome is unknown is never repeated unless it carries
//     a request id, by which the replicated state tells a repetition.
//   - Stopping changes no Raft configuration; only Leave and Remove do.
//   - Gossip is a hint: nothing that must be right depends on it.
//   - Secrets (CA key, keyring, gossip key) leave the process only in the
//     answer to a valid join token, or, the latter two, sealed to a member; they
//     are files of mode 0600.
//   - A member is its id and its key: nobody else is taken for it.
//   - The fsm.Store is written by Raft's apply goroutine alone.
//
// Concurrency: every exported method of Cluster may be called at any time from
// any goroutine, also before Run and after it (then it reports NoQuorum).
// Open reads and writes the data directory and binds the listeners; Run starts
// and ends every goroutine.
//
// Start with Open (open.go), then Run (run.go). The way of a command is
// propose.go, committer.go, machine.go; the way of a connection is stream.go;
// keys.go and knock.go are what follows a removal, forming.go what precedes a
// cluster.
package cluster
