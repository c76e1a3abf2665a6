//go:build linux

package linuxhw

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/internal/errs"
)

// device is an open block device. What begins and ends at sectors, in memory
// too, goes past the page cache; the rest goes through it.
type device struct {
	*os.File
	direct *os.File // nil where the device does not do it
	sector int64
	size   int64
}

// OpenDisk implements agent.Hardware. O_EXCL makes the kernel refuse a disk
// that is mounted, assembled or otherwise in use.
func (m *Machine) OpenDisk(_ context.Context, name string) (agent.BlockDevice, error) {
	if !strings.HasPrefix(name, "/dev/") || strings.Contains(name, "..") {
		return nil, errs.New(errs.Invalid, "%q is not a device", name)
	}
	f, err := os.OpenFile(m.path(name), os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, errs.New(errs.Busy, "%s is in use: %w", name, err)
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "%w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		f.Close()
		return nil, errs.New(errs.Invalid, "%s is not a block device", name)
	}
	var size uint64
	if err := ioctl(f, unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		f.Close()
		return nil, errs.New(errs.Internal, "size of %s: %w", name, err)
	}
	d := &device{File: f, size: int64(size), sector: 4096}
	var logical int32
	if err := ioctl(f, unix.BLKSSZGET, unsafe.Pointer(&logical)); err == nil && logical > 0 {
		d.sector = int64(logical)
	}
	d.direct = openDirect(m.path(name), st.Rdev)
	return d, nil
}

// openDirect opens the same device past the page cache, nil if that is not
// possible.
func openDirect(path string, rdev uint64) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != rdev {
		f.Close()
		return nil
	}
	return f
}

// Direct says whether aligned writes go to the device at once.
func (d *device) Direct() bool { return d.direct != nil }

// aligned says whether p at off can go past the page cache.
func (d *device) aligned(p []byte, off int64) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return d.direct != nil && off%d.sector == 0 && int64(len(p))%d.sector == 0 && int64(at)%d.sector == 0
}

// WriteAt implements agent.BlockDevice.
func (d *device) WriteAt(p []byte, off int64) (int, error) {
	if d.aligned(p, off) {
		if n, err := d.direct.WriteAt(p, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return d.File.WriteAt(p, off)
}

// ReadAt implements agent.BlockDevice.
func (d *device) ReadAt(p []byte, off int64) (int, error) {
	if d.aligned(p, off) {
		if n, err := d.direct.ReadAt(p, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return d.File.ReadAt(p, off)
}

// ZeroAt makes n bytes at off read as zero; the device may know a quicker way
// than to write them.
func (d *device) ZeroAt(off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	return ioctl(d.File, unix.BLKZEROOUT, unsafe.Pointer(&span))
}

// Close implements agent.BlockDevice.
func (d *device) Close() error {
	if d.direct != nil {
		d.direct.Close()
	}
	return d.File.Close()
}

func ioctl(f *os.File, req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

func (d *device) Size() int64 { return d.size }

// DropCaches implements agent.BlockDevice. Sync must have been called.
func (d *device) DropCaches() error {
	if err := ioctl(d.File, unix.BLKFLSBUF, nil); err != nil {
		return errs.New(errs.Internal, "flush the buffers: %w", err)
	}
	return unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// RereadPartitions implements agent.BlockDevice. The kernel is busy with a
// disk for a moment after a write; nobody else can be.
func (d *device) RereadPartitions() error {
	var err error
	for range 20 {
		if err = ioctl(d.File, unix.BLKRRPART, nil); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// releaseLimit is how long an array may take to stop.
const releaseLimit = 5 * time.Second

// ReleaseDisks implements agent.Hardware. Our ramdisk assembles nothing, but a
// kernel with md built in does. It is asked again and again because arrays may
// be made of arrays, and because it lets go of members a moment later.
func (m *Machine) ReleaseDisks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	for {
		var running []string
		for _, name := range m.names("sys/block") {
			if s := m.read("sys/block", name, "md/array_state"); s != "" && s != "clear" {
				running = append(running, name)
			}
		}
		if len(running) == 0 {
			return nil
		}
		for _, name := range running {
			m.cfg.Logger.Warn("a RAID is stopped", "array", name)
			// Whether it worked is seen in the next round.
			_ = os.WriteFile(m.path("sys/block", name, "md/array_state"), []byte("clear"), 0)
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.Busy, "RAID %s does not stop, something on it is in use: %w", strings.Join(running, ", "), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

const hdioGetIdentity = 0x030d

// ataSerial is the serial number that an ATA disk tells.
func (m *Machine) ataSerial(name string) string {
	if m.cfg.Root != "" || !strings.HasPrefix(name, "sd") {
		return ""
	}
	f, err := os.OpenFile("/dev/"+name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	var id [512]byte
	if ioctl(f, hdioGetIdentity, unsafe.Pointer(&id)) != nil {
		return ""
	}
	return string(bytes.TrimSpace(bytes.Trim(id[20:40], "\x00")))
}
