package ipmi

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/errs"
)

// openTerminal makes a terminal that passes on bytes as they are: what a
// program writes to inner comes out of outer. ipmitool keeps what it prints to
// anything else to itself until there is much of it.
func openTerminal() (outer, inner *os.File, err error) {
	defer func() {
		if err != nil {
			err = errs.New(errs.Internal, "a terminal for ipmitool: %w", err)
		}
	}()
	outer, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	var number int
	err = control(outer, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err == nil {
		inner, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, outer.Close())
	}
	err = control(inner, func(fd int) error {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		mode.Oflag &^= unix.OPOST
		mode.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
	})
	if err != nil {
		return nil, nil, errors.Join(err, inner.Close(), outer.Close())
	}
	return outer, inner, nil
}

// control calls f with a file's descriptor, which stays open meanwhile.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
