// Package efi reads and writes the boot variables of UEFI firmware: the load
// options (Boot0001 ...), their device paths and the boot order.
//
// It is for boot entries that point at a file on a partition of a disk, no
// more. Invariants:
//
//   - Parsers take bytes that firmware or a disk gave us: they never panic and
//     never read past the end, whatever the bytes are (fuzzed).
//   - What is parsed and not understood is kept byte for byte, so that parsing
//     and encoding a load option of others changes nothing.
//
// Everything but Vars is pure. Start reading at LoadOption.
package efi
