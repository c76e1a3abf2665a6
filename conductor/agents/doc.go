// Package agents carries the conversation between the conductor that holds a
// node and the agent in the node's ramdisk.
//
// An agent's stream may end at any peer (Endpoint). That peer relays it to the
// lock's holder, or to the owner while nobody holds the lock, and keeps no
// state of it (relay.go); when the holder changes, the relay turns to the new
// one and the agent notices nothing but a hello with a higher token. At the
// holder, the Hub matches commands with their results (hub.go).
//
// Invariants: a command is known by its cmdID, and sending it again is
// harmless; a relay passes on no token below the node's last token that this
// peer has applied; a command is sent only while the holder's grant is good.
//
// Start reading at Hub.Run, then relay.go.
package agents
