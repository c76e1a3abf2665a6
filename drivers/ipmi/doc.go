// Package ipmi drives BMCs that speak IPMI 2.0 over LAN (RMCP+), by ipmitool.
//
// ipmitool is run by this package and not by bmclib's ipmitool provider,
// because the provider cannot be told what the rules of package drivers need
// (docs/adr/0003-own-ipmitool-runner.md has the measurements):
//
//   - it sets the interval between sends but not their number, so that one
//     command to a slow BMC goes out four times and can be carried out as often;
//   - it has no handle on the process, so that nothing can be checked between
//     two datagrams;
//   - one call logs in up to three times, to read the state before it;
//   - it returns ipmitool's whole output as the error, and has no call for the
//     system's GUID, the BMC's own address, or reading the boot device.
//
// # Invariants
//
//   - ipmitool talks to a relay on a loopback port of this process, never to
//     the BMC. The relay asks for the grant before each datagram, and dies with
//     the process: an ipmitool that outlives us reaches nobody.
//   - Each request is sent at most twice, 5 s apart: BMCs that need longer to
//     answer carry out what is sent faster twice (measured).
//   - One explicit cipher suite; without it ipmitool tries several.
//   - The password goes by environment variable, never by argument. ipmitool is
//     asked for so little detail that it prints neither it nor what could be
//     used to guess it.
//   - Each call is one login: ipmitool has no session that could be kept. At
//     most one that reads, one that changes and one that reads the console are
//     under way at one BMC.
//   - ipmitool runs in a process group of its own, which is killed when the
//     call's context or grant ends. The one that reads a console is told first
//     to give its session back, unless the grant has ended.
//   - The relay of a console listens on the BMC's own port, because the BMC
//     says which port its console is on and ipmitool takes no other.
//
// # Concurrency
//
// A Driver has no state but its governor and which consoles it reads. Each call has one relay and one process at a time.
//
// Start with Driver.SetPower, then tool.run and relay.
package ipmi
