// Package api holds the protobuf definitions of Ironring and the Go code
// generated from them: the records that the cluster stores (records.proto),
// the commands of its log (commands.proto), and the services for clients
// (services.proto), peers (peer.proto) and agents (agent.proto).
//
// There is one definition of each record: it is stored, sent and snapshotted
// as it is. This package imports nothing of ours.
package api

//go:generate sh -c "protoc -I . --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative *.proto"
