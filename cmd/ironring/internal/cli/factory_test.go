package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminalPair is a terminal, and the end at which a person would sit.
func terminalPair(t *testing.T) (person, tty *os.File) {
	t.Helper()
	open := func(path string) *os.File {
		file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	person = open("/dev/ptmx")
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return person, open(fmt.Sprintf("/dev/pts/%d", number))
}

// Half of what TLS needs is refused with all that it needs.
func TestTLSFlagsTogether(t *testing.T) {
	for given, missing := range map[string]string{"ca": "--cert, --key", "cert": "--ca, --key", "key": "--ca, --cert"} {
		f, _, errOut := testFactory("", nil)
		code := Main(t.Context(), f, []string{"node", "list", "--server", "127.0.0.1:1", "--" + given, "x.pem"})
		if text := errOut.String(); code != 3 || !strings.Contains(text, "error: "+missing+": not given") || !strings.Contains(text, "ironring client-cert create") {
			t.Errorf("--%s alone: exit code %d: %s", given, code, text)
		}
	}
}

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
	_, tty := terminalPair(t)
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
		{"a terminal", tty, true},
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
