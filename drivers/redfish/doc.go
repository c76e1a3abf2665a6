// Package redfish drives BMCs that speak DMTF Redfish (DSP0266) over HTTPS.
//
// gofish's client writes and reads the wire. By itself it keeps none of the
// rules of package drivers: its requests ignore the caller's context, follow
// links to other hosts, and say little about what was sent. So it is given an
// http.Client of ours, and call (call.go) is where the rules are kept. What is
// asked for, and what makers do otherwise than Redfish says, is ours: the
// latter is one table, quirks.go (docs/adr/0018-redfish-sessions-and-quirks.md).
//
// # Invariants
//
//   - A call that changes the machine has one connection and one session, which
//     is logged out at the end. Calls that read share one session for each BMC
//     and user (session.go); it is logged out when it is idle, when the
//     credentials change, and by Close. Basic authentication is refused.
//   - At most one read and one change are under way at one BMC: two connections
//     and two sessions (package governor).
//   - Every request goes to the configured address and to no other; no proxy
//     is used, whatever the environment says.
//   - At most one request of a call changes the machine. A second is let
//     through only when the BMC has refused the first (4xx), so that it is known
//     to have done nothing.
//   - Only the system that redfish_system_id names is ever seen.
//   - The BMC's certificate is decided on in the handshake, before anything is
//     sent (tls.go).
//   - After the grant has ended nothing is sent, not even the logout.
//
// # Concurrency
//
// A Driver may be used by any goroutine. All I/O runs in call.RoundTrip, which
// ends with the call's context; a session that has become idle is logged out
// by a timer, which Close awaits.
//
// Start with Driver.SetPower, then Driver.change and call.RoundTrip.
package redfish
