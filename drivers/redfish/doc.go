// Package redfish drives BMCs that speak DMTF Redfish (DSP0266) over HTTPS.
//
// Changes go through bmclib's client with exactly one provider, its Redfish
// one; what bmclib has no call for is read with gofish. Neither of them keeps
// the rules of package drivers by itself: their requests ignore the caller's
// context, retry, follow links to other hosts, and say little about what was
// sent. So both are given an http.Client of ours, and call (call.go) is where
// the rules are kept.
//
// # Invariants
//
//   - One call has one client, one connection at a time and one session, which
//     is logged out at the end. Basic authentication is refused.
//   - Every request goes to the configured address and to no other; no proxy
//     is used, whatever the environment says.
//   - At most one request of a call changes the machine. A second is let
//     through only when the BMC has refused the first for its form (4xx), so
//     that it is known to have done nothing.
//   - Only the system that redfish_system_id names is ever shown to the
//     libraries: on a chassis with several they cannot pick another one.
//   - Certificates are verified unless redfish_verify_ca is false.
//   - After the grant has ended nothing is sent, not even the logout.
//
// # Concurrency
//
// A Driver has no state. The libraries start goroutines of their own; all
// their I/O runs in call.RoundTrip, which ends with the call's context.
//
// Start with Driver.SetPower, then call.RoundTrip.
package redfish
