// Package pxe is the boot service of a peer: DHCP, TFTP and HTTP boot for the
// machines that the cluster knows.
//
// What a machine gets is a boot record, a pure function of the replicated
// state (Record), so any peer serves any node and there is nothing to rebuild
// when a peer is lost. The package does not decide that a machine boots: the
// flow engine does, by committing the node's boot target and nonce.
//
// # Invariants
//
//   - At one index all peers give the same script for a MAC, byte for byte.
//     Only DHCP answers name the peer that gave them.
//   - Machines that no port names get nothing: no address, no file, no error
//     that would tell them about others. Files that are the same for all
//     (iPXE, kernel, initramfs) are no secret and are served to anyone.
//   - A boot nonce is sent only to the address that is allocated to its MAC, or
//     with the key that this boot's MAC was sent at that address (proxy.go).
//   - On a network with a foreign DHCP server no address is given.
//   - No file is opened by a name that a client sent: names are keys of fixed
//     tables.
//   - Only validated fields enter a script: ids, digests, addresses; never
//     free text of a node.
//   - A peer without leader contact for StaleAfter offers a boot only to nodes
//     that were deploying, cleaning or inspecting when it last knew, so that a
//     cut-off peer cannot pull a tenant's machine into a ramdisk.
//   - A NAK is sent only for a request addressed to this peer.
//   - IPv6 router solicitations are answered to known machines whose iPXE is
//     booting right now, by unicast, and announce nothing (router.go).
//
// # Concurrency
//
// Everything is driven by Server.Run, which ends only when each goroutine it
// started has ended. Packets and requests are handled in parallel up to fixed
// bounds; what is above a bound is dropped (UDP) or waits (TCP), and clients
// repeat. Observe is called from any of these goroutines and must not block.
//
// # Where to start
//
// record.go says what a machine gets, script.go writes the iPXE script,
// offer.go answers a DHCP packet, proxy.go one beside a foreign server; the rest
// is sockets. docs/boot.md is the same from outside.
package pxe
