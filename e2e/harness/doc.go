// Package harness builds a small data centre out of one Debian host: network
// namespaces for the hosts of the peers, QEMU machines with a power button for
// the servers, and OpenIPMI's ipmi_sim in front of each as its BMC; where media
// are needed it is our own simulated BMC, which speaks Redfish.
//
// It is for the end-to-end tests (package e2e, tag e2e) and needs root.
//
// Invariants:
//   - Nothing is visible outside the namespaces that the lab makes; their
//     names begin with a prefix that is unique to the run.
//   - Only processes that this run started are ended, by pid. Each dies with
//     the test binary (parent-death signal), so that a crash leaves none.
//   - A run that died is tidied up by the next one: see Sweep.
//   - Nothing waits for a fixed time: conditions are polled with a limit that
//     grows with Lab.Scale, the slowness that Calibrate measured.
//   - A console is read from a known offset: an old marker is never found.
//
// Concurrency: the methods of Lab, VM and BMC may be called from several
// goroutines. A VM's power belongs to the VM; the BMC only asks for it.
//
// Start reading at Open (run.go), then VM (vm.go), BMC (bmc.go) and
// Redfish (redfish.go).
package harness
