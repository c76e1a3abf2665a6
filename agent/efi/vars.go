package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/errs"
)

// Attributes of a variable that outlives the boot and that an operating
// system may change.
const (
	NonVolatile   = 1
	BootService   = 2
	RuntimeAccess = 4
	Stored        = NonVolatile | BootService | RuntimeAccess
)

// immutableFlag is FS_IMMUTABLE_FL of <linux/fs.h>.
const immutableFlag = 0x10

// globalGUID is the vendor of the boot variables.
const globalGUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// Vars are the firmware's global variables. Get of one that is not there is
// errs.NotFound.
type Vars interface {
	Names() ([]string, error)
	Get(name string) (data []byte, attrs uint32, err error)
	Set(name string, attrs uint32, data []byte) error
	Delete(name string) error
}

// FS are the variables behind a mounted efivarfs.
type FS struct {
	Dir string // "" means /sys/firmware/efi/efivars
}

var _ Vars = FS{}

func (f FS) dir() string {
	if f.Dir == "" {
		return "/sys/firmware/efi/efivars"
	}
	return f.Dir
}

func (f FS) path(name string) string { return filepath.Join(f.dir(), name+"-"+globalGUID) }

// Names implements Vars.
func (f FS) Names() ([]string, error) {
	ents, err := os.ReadDir(f.dir())
	if err != nil {
		return nil, fmt.Errorf("list firmware variables: %w", err)
	}
	var out []string
	for _, e := range ents {
		if n, ok := strings.CutSuffix(e.Name(), "-"+globalGUID); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// Get implements Vars.
func (f FS) Get(name string) ([]byte, uint32, error) {
	b, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, errs.New(errs.NotFound, "firmware variable %s: %w", name, err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read firmware variable %s: %w", name, err)
	}
	if len(b) < 4 {
		return nil, 0, errs.New(errs.Invalid, "firmware variable %s has %d bytes", name, len(b))
	}
	return b[4:], binary.LittleEndian.Uint32(b), nil
}

// Set implements Vars. The whole variable goes in one write, because efivarfs
// hands each write to the firmware.
func (f FS) Set(name string, attrs uint32, data []byte) error {
	p := f.path(name)
	if err := mutable(p); err != nil {
		return fmt.Errorf("make firmware variable %s writable: %w", name, err)
	}
	b := append(binary.LittleEndian.AppendUint32(nil, attrs), data...)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		return fmt.Errorf("write firmware variable %s: %w", name, err)
	}
	return nil
}

// Delete implements Vars.
func (f FS) Delete(name string) error {
	p := f.path(name)
	if err := mutable(p); err != nil {
		return fmt.Errorf("make firmware variable %s writable: %w", name, err)
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete firmware variable %s: %w", name, err)
	}
	return nil
}

// mutable takes the immutable flag off p, which efivarfs sets on variables
// whose loss could brick a machine; boot entries are not among these, but
// older kernels flag them too.
func mutable(p string) error {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a file system without flags
	}
	if err != nil || flags&immutableFlag == 0 {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^immutableFlag)
}

// Memory is a set of variables that lives in memory, for simulated machines.
// The zero value is empty and ready. Safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	vars map[string]memVar // guarded by mu
}

type memVar struct {
	attrs uint32
	data  []byte
}

var _ Vars = (*Memory)(nil)

// Names implements Vars; sorted.
func (m *Memory) Names() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]string, 0, len(m.vars))
	for n := range m.vars {
		out = append(out, n)
	}
	sort.Strings(out)
	return out, nil
}

// Get implements Vars.
func (m *Memory) Get(name string) ([]byte, uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.vars[name]
	if !ok {
		return nil, 0, errs.New(errs.NotFound, "no firmware variable %s", name)
	}
	return append([]byte(nil), v.data...), v.attrs, nil
}

// Set implements Vars.
func (m *Memory) Set(name string, attrs uint32, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.vars == nil {
		m.vars = map[string]memVar{}
	}
	m.vars[name] = memVar{attrs: attrs, data: append([]byte(nil), data...)}
	return nil
}

// Delete implements Vars.
func (m *Memory) Delete(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.vars, name)
	return nil
}
