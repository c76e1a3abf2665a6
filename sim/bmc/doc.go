// Package bmc is a BMC that speaks Redfish over HTTPS, for simulated machines:
// those of `ironring lab`, and those of tests that need to know exactly what a
// BMC was asked and when it did it.
//
// It follows DMTF DSP0266 for what it has: the service root, sessions and basic
// authentication, one system with power, resets and boot override, its manager
// with a NIC, a minimal chassis. It is not a full service: what is missing
// answers 404, what may not be written 405.
//
// # Invariants
//
//   - The BMC owns the power state and the boot override; the Machine behind it
//     is told. Changes of power take Config.PowerDelay and happen one after
//     another, in the order in which they were accepted.
//   - Every request that could change the machine is in the trace with the time
//     it was received and the time it took effect, also when it was refused.
//   - A boot override "Once" is used up by the boot that it was for, also when
//     the guest reboots by itself (NextBoot).
//   - Nothing that a client sends makes it panic or grow: bodies, sessions,
//     trace and pending changes are bounded.
//
// # Concurrency
//
// All methods may be called by any goroutine. The power of a Machine is changed
// by one goroutine at a time, so is its Drive, and both may happen at once. No
// lock of what the methods need is held then, so that it may call back. Run
// returns when everything it started has ended.
//
// Start with Config and New; faults on demand are in fault.go.
package bmc
