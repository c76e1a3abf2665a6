// Package media makes the boot media of machines that cannot boot from the
// network: ISO images for the virtual CD drive of a BMC, with the ramdisk, the
// kernel line of one boot, and the static network data of one machine.
//
// # How an image is made
//
// What all machines share (boot loader, kernel, initramfs) is written once as a
// template, with two places of fixed size for what is of one machine: a
// configuration of the boot loader (its kernel line) and a second initramfs
// (/etc/ironring/network.json). An image is the template with these two places
// filled in while it is read. It is never written to disk, so a nonce is in no
// file, and nothing is left behind.
//
// # Boot
//
// UEFI only. The El Torito entry is a small FAT with the loader: shim and GRUB
// of the distribution, both signed, so that it boots under Secure Boot too. GRUB
// looks for the volume by an id that no other volume has, because the machine's
// disks may hold media of others.
//
// Invariants: a kernel line is of validated words (package pxe makes it); a
// template is complete or not there (written beside and renamed). Maker is safe
// for concurrent use. Start at maker.go.
package media
