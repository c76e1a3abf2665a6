package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// person is somebody at a terminal: answer gets the question and gives what is
// typed.
type person func(question string) string

func types(text string) person { return func(string) string { return text } }

// at runs the program at the socket of a peer, before a person or, without
// one, where nobody can be asked.
func (f *fixture) at(t *testing.T, p *peer, who person, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(within(t), f.opts.Binary, args...)
	cmd.Env = append(os.Environ(), "IRONRING_SOCKET="+p.socket, "NO_COLOR=1")
	var b bytes.Buffer
	cmd.Stdout = &b
	if who == nil {
		cmd.Stderr = &b
		_ = cmd.Run() // how it ended is its exit code
		return b.String(), cmd.ProcessState.ExitCode()
	}
	master, slave, err := terminal()
	if err != nil {
		t.Fatal("a terminal: ", err)
	}
	defer master.Close()
	cmd.Stdin, cmd.Stderr = slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	said := ""
	buf := make([]byte, 4096)
	for {
		n, err := master.Read(buf)
		said += string(buf[:n])
		if err != nil {
			break // the program has ended
		}
		if q := said[strings.LastIndexByte(said, '\n')+1:]; who != nil && strings.HasPrefix(q, "Type ") && strings.HasSuffix(q, ": ") {
			fmt.Fprintln(master, who(q))
			who = nil // one question; the echo is none
		}
	}
	_ = cmd.Wait() // as above
	return strings.ReplaceAll(said, "\r\n", "\n") + b.String(), cmd.ProcessState.ExitCode()
}

// terminal makes a pseudoterminal.
func terminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}
