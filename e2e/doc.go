// Package e2e tests Ironring from the outside, on real machines: three peers
// as processes in network namespaces of their own, QEMU machines with UEFI
// firmware that boot over the network, and OpenIPMI's ipmi_sim as their BMCs.
// Everything goes through the program bin/ironring, as a user would do it.
//
// It needs root on Debian and has the build tag e2e: `make e2e`. Each run
// leaves a directory e2e-out/DATE-TIME-PREFIX with the logs of all processes,
// the consoles of the machines and the timelines; e2e-out/latest is the last.
//
// The lab itself is package harness. Cases run one after the other, with one
// machine powered at a time.
package e2e
