package agent

import (
	"context"
	"io"
	"time"

	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/internal/agentproto"
)

// Hardware is the machine that the agent works on: a real one (package
// linuxhw) or one made of files (package filehw). Methods may be called from
// several goroutines.
type Hardware interface {
	// Identity is what the machine says it is; it must answer fast, because
	// enrolment waits for it.
	Identity(ctx context.Context) (Identity, error)
	// Inventory is all that can be found out, the BMC's view included.
	Inventory(ctx context.Context) (*agentproto.Inventory, error)
	// Disks are the block devices as they are now.
	Disks(ctx context.Context) ([]agentproto.Disk, error)
	// ReleaseDisks stops software RAIDs that the kernel has assembled, so that
	// their members can be opened. What runs on top keeps its disks.
	ReleaseDisks(ctx context.Context) error
	// OpenDisk opens a disk that Disks named, for this process alone.
	OpenDisk(ctx context.Context, name string) (BlockDevice, error)
	// EFI are the firmware's variables, nil when it booted in BIOS mode.
	EFI() efi.Vars
	// SetClock sets the machine's clock; the agent itself does not rely on it.
	SetClock(t time.Time) error
	// Reboot and PowerOff are the last thing that Run does. On a real machine
	// they do not return; a simulated one returns at once and acts after Run
	// has ended.
	Reboot() error
	PowerOff() error
}

// Identity is how a machine proves that a boot nonce was meant for it.
type Identity struct {
	SystemUUID string   // SMBIOS type 1, lower case
	Serial     string   // SMBIOS type 1
	MACs       []string // of all Ethernet NICs, lower case with colons
}

// BlockDevice is an open disk.
type BlockDevice interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size is in bytes.
	Size() int64
	// Sync returns when all that was written is on the medium.
	Sync() error
	// DropCaches makes the reads that follow come from the medium.
	DropCaches() error
	// RereadPartitions makes the kernel look at the partition table again.
	RereadPartitions() error
}
