package ramdisk

import "strings"

// DefaultModules are the modules that go in unless others are asked for: the
// common network cards and disk controllers of servers and of virtual machines,
// the BMC's in-band interface, the firmware's variables. Every machine fetches
// all of it at each boot, so rare cards are left to Options.Modules. Modules
// that a kernel does not have are left out, what they need is added.
func DefaultModules() []string {
	return strings.Fields(`
		virtio_pci virtio_mmio virtio_net virtio_blk virtio_scsi virtio_rng
		e1000 e1000e igb igc ixgbe i40e ice
		tg3 bnx2 bnx2x bnxt_en
		mlx4_core mlx4_en mlx5_core
		qede be2net enic ionic r8169 realtek
		bonding 8021q
		ena gve mana vmxnet3 hv_netvsc xen_netfront

		ahci ata_piix sd_mod nvme vmd
		megaraid_sas mpt3sas smartpqi hpsa aacraid
		mptsas mptspi vmw_pvscsi hv_storvsc xen_blkfront

		hv_vmbus ipmi_si ipmi_ssif ipmi_devintf efivarfs
	`)
}
