// Package clustertest starts real peers in one process on loopback addresses
// of their own and gives tests verbs for what happens to them: Start, Kill,
// Restart, Partition, Heal, WaitLeader.
//
// Everything is real (Raft with its files in a temporary directory, gossip,
// TLS); only dialing goes through a fabric that can cut peers off from each
// other. Gossip's datagrams do not: it is a hint, and a good cluster works
// with wrong hints.
//
// The verbs of a Kit belong to the test's goroutine; the Cluster of a Peer may
// be used by any, but is another one after Restart. Start with Start.
package clustertest
