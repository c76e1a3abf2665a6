package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/api"
)

// remains is all of a machine that nobody may change by mistake.
type remains struct {
	disks    string // digest of every byte of all disks
	written  uint64 // bytes that agents wrote, be they the same as before
	changes  int    // requests to the BMC to change something
	powerOns int
	power    api.PowerState
}

// look takes stock of machines, by name.
func look(t *testing.T, all map[string]*node) map[string]remains {
	t.Helper()
	out := map[string]remains{}
	for name, n := range all {
		st, b := n.machine.Stats(), n.bmc.Stats()
		sum := sha256.New()
		for d := range n.disks {
			if err := digest(sum, n.machine.DiskPath(d)); err != nil {
				t.Fatal(err)
			}
		}
		out[name] = remains{hex.EncodeToString(sum.Sum(nil)), st.Written, b.Changes, b.PowerOns + st.PowerOns, n.bmc.Power()}
	}
	return out
}

// digest writes what a disk holds: each block that is not all zeros, with its
// place. Holes of the file are zeros and not read.
func digest(w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	const block = 64 << 10
	buf, zero := make([]byte, block), [block]byte{}
	for at := int64(0); at < size; at += block {
		data, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		if err == nil { // else no such thing here: every block is read
			at = data - data%block
		}
		n, err := file.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if string(buf[:n]) == string(zero[:n]) {
			continue
		}
		if _, err := fmt.Fprintf(w, "%d:", at); err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(w, "end %d", size)
	return err
}

// same compares machines with what they were. The BMCs of some may have been
// told to boot them; their disks are as they were all the same.
func same(t *testing.T, before, now map[string]remains, booted ...string) {
	t.Helper()
	may := map[string]bool{}
	for _, name := range booted {
		may[name] = true
	}
	for name, was := range before {
		is := now[name]
		if is.disks != was.disks || is.written != was.written {
			t.Errorf("%s: the disks changed: %d bytes were written", name, is.written-was.written)
		}
		if !may[name] && (is.changes != was.changes || is.powerOns != was.powerOns || is.power != was.power) {
			t.Errorf("%s: its BMC was told to change something: %+v, was %+v", name, is, was)
		}
	}
}

// TestDigestSeesAnyByte: the digest of a disk with holes changes with any byte,
// and not with how its zeros are stored.
func TestDigestSeesAnyByte(t *testing.T) {
	path := t.TempDir() + "/disk"
	const size = 8<<20 + 512
	of := func() string {
		t.Helper()
		sum := sha256.New()
		if err := digest(sum, path); err != nil {
			t.Fatal(err)
		}
		return string(sum.Sum(nil))
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int64{of(): -1}
	for _, at := range []int64{0, 1, 4095, 4096, 65535, 65536, 5 << 20, size - 1} {
		if _, err := file.WriteAt([]byte{1}, at); err != nil {
			t.Fatal(err)
		}
		now := of()
		if other, twice := seen[now]; twice {
			t.Errorf("a byte at %d is the same as one at %d", at, other)
		}
		seen[now] = at
		if _, err := file.WriteAt([]byte{0}, at); err != nil { // a zero that is stored
			t.Fatal(err)
		}
		if at, known := seen[of()]; !known || at != -1 {
			t.Errorf("zeros in the place of a hole are another disk")
		}
	}
}
