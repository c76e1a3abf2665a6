// Package fake is a driver whose BMCs are objects in memory, for tests and for
// trying things out. It dials nothing: in production a node with this driver
// has a power state that only this process knows, and forgets when it ends.
//
// Tests reach the object behind an address with Driver.BMC, and script its
// faults: it can be slow, lie, die, deny. What was asked of it is on a trace
// with the token of each call.
//
// # Invariants
//
//   - A BMC is made when it is first asked for, off and without a boot device.
//   - The promises of package drivers hold as far as they make sense: grants
//     are checked, also while a slow BMC makes a call wait; a call ends with its
//     context.
//
// # Concurrency
//
// Everything may be used by any goroutine.
//
// Start with New, then Fault.
package fake
