package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A command that is run by a machine has no terminal, also where its streams
// are character devices.
func TestTerminal(t *testing.T) {
	open := func(path string, flags int) *os.File {
		file, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	master := open("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY)
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	closed := open(os.DevNull, os.O_RDWR)
	closed.Close()
	for _, c := range []struct {
		name string
		w    any
		want bool
	}{
		{"a terminal", open(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY), true},
		{"/dev/null", open(os.DevNull, os.O_RDWR), false},
		{"/dev/zero", open("/dev/zero", os.O_RDONLY), false},
		{"a file", open(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE), false},
		{"a pipe", writer, false},
		{"a closed file", closed, false},
		{"a buffer", &bytes.Buffer{}, false},
		{"nothing", nil, false},
		{"no file", (*os.File)(nil), false},
	} {
		if got := terminal(c.w); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
