// Package agentproto holds the JSON shapes of what conductor and agent say to
// each other inside protobuf messages: the kernel line, arguments and results
// of agent commands. The agent accepts unknown fields from newer conductors;
// both sides treat absent fields as zero.
package agentproto

// Names of agent commands (api.AgentCommand.name).
const (
	CmdInventory     = "inventory"      // no arguments; result Inventory
	CmdWriteImage    = "write_image"    // WriteImageArgs; result WriteImageResult
	CmdEraseMetadata = "erase_metadata" // EraseArgs; result EraseResult
	CmdCheckDrive    = "check_drive"    // CheckDriveArgs; result CheckDriveResult
	CmdConfigDrive   = "config_drive"   // ConfigDriveArgs; result ConfigDriveResult
	CmdBootEntry     = "boot_entry"     // BootEntryArgs; result BootEntryResult
	CmdReboot        = "reboot"         // no arguments; result {} is sent before it happens
	CmdPowerOff      = "poweroff"       // no arguments; result {} is sent before it happens
)

// Keys of the kernel line that the boot service writes and the agent reads.
// Values hold no spaces and no secrets.
const (
	LineNode   = "ironring.node"  // node id
	LineNonce  = "ironring.nonce" // boot nonce
	LinePeers  = "ironring.peers" // agent addresses host:port, comma separated
	LineCA     = "ironring.ca"    // lower-case hex SHA-256 of the CA certificate (DER)
	LineBootIF = "BOOTIF"         // 01-aa-bb-cc-dd-ee-ff, as pxelinux writes it
)

// Inventory is what the machine is made of, as the agent sees it.
type Inventory struct {
	SystemUUID   string      `json:"system_uuid"` // SMBIOS type 1, lower case
	Serial       string      `json:"serial"`      // SMBIOS type 1
	Manufacturer string      `json:"manufacturer,omitempty"`
	Product      string      `json:"product,omitempty"`
	BIOSVersion  string      `json:"bios_version,omitempty"`
	BootMode     string      `json:"boot_mode"` // "uefi" or "bios"
	CPUs         int         `json:"cpus"`
	CPUModel     string      `json:"cpu_model,omitempty"`
	Arch         string      `json:"arch"` // GOARCH
	MemoryBytes  uint64      `json:"memory_bytes"`
	Interfaces   []Interface `json:"interfaces"`
	Disks        []Disk      `json:"disks"`
	BMC          BMC         `json:"bmc"`
}

// Interface is one Ethernet NIC.
type Interface struct {
	Name    string   `json:"name"`
	MAC     string   `json:"mac"`
	Addrs   []string `json:"addrs,omitempty"`
	Driver  string   `json:"driver,omitempty"`
	Carrier bool     `json:"carrier"`
	Speed   int      `json:"speed_mbit,omitempty"`
}

// BMC is what the in-band interface says of the BMC; empty Addresses with an
// Error mean that it could not be asked.
type BMC struct {
	Addresses []string `json:"addresses,omitempty"`
	MACs      []string `json:"macs,omitempty"`
	GUID      string   `json:"guid,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// Disk is one block device. Excluded says why it can never be the root disk
// ("" for a candidate): usb, removable, virtual media, multipath, raid
// member, read-only, too small.
type Disk struct {
	Name       string   `json:"name"` // "/dev/sda"
	SizeBytes  uint64   `json:"size_bytes"`
	Model      string   `json:"model,omitempty"`
	Vendor     string   `json:"vendor,omitempty"`
	Serial     string   `json:"serial,omitempty"`
	WWN        string   `json:"wwn,omitempty"`
	WWNExt     string   `json:"wwn_with_extension,omitempty"`
	WWNVendor  string   `json:"wwn_vendor_extension,omitempty"`
	Rotational bool     `json:"rotational"`
	HCTL       string   `json:"hctl,omitempty"`
	ByPath     string   `json:"by_path,omitempty"` // "/dev/disk/by-path/..."
	Tran       string   `json:"tran,omitempty"`    // sata, nvme, virtio, scsi, usb
	Removable  bool     `json:"removable,omitempty"`
	ReadOnly   bool     `json:"read_only,omitempty"`
	Holders    []string `json:"holders,omitempty"`
	Excluded   string   `json:"excluded,omitempty"`
	LogicalBlk int      `json:"logical_block_bytes,omitempty"`
	// Contents names what lies on the disk: partition tables, file systems,
	// "unknown data". Empty for a blank disk; null where it is not known.
	Contents []string `json:"contents"`
}

// DiskID names one disk so that no other can be taken for it: serial and WWN
// must match where they are set; where both are empty, by_path and size must.
type DiskID struct {
	Name      string `json:"name"`
	Serial    string `json:"serial,omitempty"`
	WWN       string `json:"wwn,omitempty"`
	ByPath    string `json:"by_path,omitempty"`
	SizeBytes uint64 `json:"size_bytes"`
}

// WriteImageArgs ask for exactly one image on exactly one disk.
type WriteImageArgs struct {
	URLs     []string `json:"urls"`     // tried in turn; the same bytes behind each
	Format   string   `json:"format"`   // "raw", "qcow2"; "" means what the file's first bytes say
	Compress string   `json:"compress"` // "", "gzip", "zstd"
	// Checksum is over the bytes as served: "sha256:HEX" or "sha512:HEX".
	Checksum string `json:"checksum"`
	// Disk may hold what it held when it was chosen, and nothing else.
	Disk JudgedDisk `json:"disk"`
}

// WriteImageResult tells what was read and written. ReadDigest is over the
// bytes as served, WrittenDigest over the bytes read back from the disk.
//
// Of a raw image the digests of content are "sha256:HEX". A qcow2 image is not
// written in the order of the disk: there they are "sha256-clusters:HEX", the
// exclusive or over all clusters that the file holds of SHA-256(offset on the
// disk as 8 bytes, big endian; bytes of the cluster). That the rest of the disk
// reads as zero is checked besides.
type WriteImageResult struct {
	Format        string  `json:"format"`        // "raw" or "qcow2"
	BytesRead     uint64  `json:"bytes_read"`    // of the file
	BytesWritten  uint64  `json:"bytes_written"` // to the disk; holes of a qcow2 image do not count
	ReadDigest    string  `json:"read_digest"`
	ContentDigest string  `json:"content_digest"` // over what was sent to the disk
	WrittenDigest string  `json:"written_digest"` // over what was read back
	Requests      int     `json:"requests"`       // HTTP requests, 1 when nothing was resumed
	Seconds       float64 `json:"seconds"`
	WriteSeconds  float64 `json:"write_seconds"`  // from the first byte until all is on the medium
	VerifySeconds float64 `json:"verify_seconds"` // reading back
	Disk          DiskID  `json:"disk"`
}

// EraseArgs name the disks whose partition tables and signatures go: all that
// may be erased. When the machine has others by now nothing is erased.
type EraseArgs struct {
	Disks []JudgedDisk `json:"disks"`
}

// JudgedDisk is a disk as it was when it was decided that it may be written.
type JudgedDisk struct {
	DiskID
	// Contents is what lay on it, as in Disk; null where that was not known.
	Contents []string `json:"contents"`
}

// EraseResult names the disks whose metadata is gone, and those that are never
// written. Data remains.
type EraseResult struct {
	Disks   []ErasedDisk  `json:"disks"`
	Skipped []SkippedDisk `json:"skipped,omitempty"`
}

// ErasedDisk is a disk and what it was a member of before.
type ErasedDisk struct {
	DiskID
	MemberOf []string `json:"member_of,omitempty"`
}

// SkippedDisk is a disk that was not written, and why.
type SkippedDisk struct {
	DiskID
	Reason string `json:"reason"`
}

// CheckDriveArgs ask for a look at the config drive behind a URL, before
// anything is written. They may hold secrets.
type CheckDriveArgs struct {
	Drive    string `json:"drive"`
	Checksum string `json:"checksum,omitempty"` // as in ConfigDriveArgs
}

// CheckDriveResult tells of a drive that is there and can be used.
type CheckDriveResult struct {
	Bytes    int64  `json:"bytes"`              // of the image, unpacked
	Checksum string `json:"checksum,omitempty"` // as in ConfigDriveResult
}

// ConfigDriveArgs ask for a config drive on a partition of its own at the end
// of the disk. They may hold secrets.
type ConfigDriveArgs struct {
	Drive string `json:"drive"` // as package configdrive reads it
	// Checksum is over the file behind a URL, as served: "sha256:HEX" or
	// "sha512:HEX". "": what an https server gives is taken.
	Checksum string `json:"checksum,omitempty"`
	// Defaults go into the meta data of a drive that is made of documents,
	// where it has no member of that name.
	Defaults map[string]string `json:"defaults,omitempty"`
	Disk     DiskID            `json:"disk"`
}

// ConfigDriveResult is where the drive is.
type ConfigDriveResult struct {
	Partition int    `json:"partition"`
	StartByte int64  `json:"start_byte"`
	Bytes     int64  `json:"bytes"`
	Digest    string `json:"digest"`          // "sha256:HEX" of the image, or of the documents it was made of
	Found     bool   `json:"found,omitempty"` // it was there already, nothing was written
	// Checksum is the one of the arguments, once the file was compared with it.
	// An agent that does not know it gives none.
	Checksum string `json:"checksum,omitempty"`
	Disk     DiskID `json:"disk"`
}

// BootEntryArgs name the disk that the firmware shall boot.
type BootEntryArgs struct {
	Disk DiskID `json:"disk"`
}

// BootEntryResult is what was read back. In BIOS mode there is nothing to set:
// that the disk has a boot program was checked, the firmware's own order
// decides.
type BootEntryResult struct {
	Mode   string   `json:"mode"` // "uefi" or "bios"
	Entry  string   `json:"entry,omitempty"`
	Loader string   `json:"loader,omitempty"`
	Order  []string `json:"order,omitempty"`
	Active int      `json:"active_partition,omitempty"` // in BIOS mode, from 1; 0: none has the flag
}
