// Package rpc is the one place where errors cross a gRPC connection, and
// where the settings that every connection shares are kept.
//
// A server answers with a gRPC code and, as a detail, an api.Failure that
// carries the errs.Kind by name; a client gets the kind back. A client that
// gets no Failure at all decides by what it sent: nothing sent is
// errs.Unreachable (the outcome is known), anything else is errs.Timeout (the
// outcome is unknown).
//
// Everything here is safe for concurrent use. Start with ServerOptions and
// DialOptions.
package rpc
