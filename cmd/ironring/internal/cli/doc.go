// Package cli is the command line of ironring: the commands that talk to a
// cluster, and those that start a peer.
//
// It is wiring: it reads flags, environment and files, calls package client
// or package serve, and prints. One file holds one group of commands; all
// they need of the process (streams, environment, clock, global flags) comes
// from a Factory, so that tests can replace it.
//
// Invariants:
//   - Secrets never come by argv: see values.go.
//   - With -o json standard output holds one JSON document and nothing else;
//     `logs` and `timeline` print one document a line.
//   - Progress and warnings go to standard error.
//   - Exit codes are decided once, in exit.go.
//
// To add a command, write newXxxCmd(f *Factory) and list it in root.go.
package cli
