// Package drivers says what Ironring can ask of a BMC, and how.
//
// A driver speaks one protocol to one kind of BMC. It offers one small
// interface for each verb and declares as data what it can do; what it cannot
// do it answers with errs.Unsupported. The drivers themselves are the packages
// below: ipmi, redfish, fake. Which of them a process knows is an explicit list
// given to NewRegistry by cmd. This package is not for policy: when to call,
// how often, and what follows from the answer is the conductor's.
//
// # Invariants
//
//   - A mutating call takes a Grant. It is checked before the call, before each
//     request or datagram of the call, and while the call waits; once it has
//     ended nothing more is sent, and the sockets of the call are closed.
//   - A mutating call sends at most one request that changes the machine, over
//     a connection made for this call. It does not try a second protocol and
//     does not read back: the caller reads what became of it.
//   - Actions are levels (on, off, boot from disk), never edges (toggle, cycle),
//     so that saying one twice does no harm.
//   - Errors carry a kind. Denied: the BMC refused our credentials or rights.
//     Unreachable: nothing that could change the machine was sent. Timeout: the
//     outcome is unknown. Fenced: the grant ended. Invalid: driver_info is wrong,
//     or the BMC finds the request wrong. Internal: the BMC reports a fault of
//     its own, or answers what its protocol does not allow. Busy: it refuses for
//     now. Unsupported: driver or BMC cannot do it.
//   - No error, log line or argument list holds a credential.
//
// # Concurrency
//
// Drivers are safe for concurrent use and hold no lock across I/O. Every call
// has ended, and with it all that it started, when it returns.
//
// Start with Driver and PowerSetter in drivers.go, then Bind in grant.go.
// Package drivertest holds the tests that every driver must pass.
package drivers
