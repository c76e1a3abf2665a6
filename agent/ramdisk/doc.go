// Package ramdisk builds what machines boot into: a kernel and an initramfs
// with the agent as /init and the kernel's modules for servers.
//
// The initramfs is two archives, one after the other, as the kernel allows:
//
//   - the modules, each compressed by itself, in an archive that is not;
//     unpacking it costs next to nothing, and the agent decompresses the few
//     modules that the machine's devices ask for;
//   - the agent and the lists of modules, compressed as a whole.
//
// Invariants: the same inputs give the same bytes, whenever and wherever they
// are built; every module comes with all that it needs; a module's bytes, and
// with them its signature, are not changed.
//
// Build runs in the calling goroutine. Start reading there.
package ramdisk
