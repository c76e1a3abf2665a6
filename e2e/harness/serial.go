package harness

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// serialPort is the end of a machine's serial cable at its BMC: whoever connects
// gets what the console shows from then on. What is typed is not passed on.
//
// It follows the file that QEMU writes the console to, so that it makes no
// difference to the machine whether there is one.
type serialPort struct {
	listen  net.Listener
	console *Console
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// serialEvery is how late the cable is at most.
const serialEvery = 50 * time.Millisecond

// serialPort opens the cable of a machine where its BMC is.
func (l *Lab) serialPort(vm *VM) (*serialPort, error) {
	listen, err := l.Listen("bmc", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &serialPort{listen: listen, console: vm.Console, cancel: cancel}
	s.wg.Go(func() { s.serve(ctx) })
	return s, nil
}

func (s *serialPort) serve(ctx context.Context) {
	for {
		conn, err := s.listen.Accept()
		if err != nil {
			return
		}
		mark := s.console.Mark()
		ctx, cancel := context.WithCancel(ctx)
		s.wg.Go(func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, conn)
		})
		s.wg.Go(func() {
			defer conn.Close()
			defer cancel()
			s.follow(ctx, conn, mark)
		})
	}
}

// follow passes on what the console shows after mark.
func (s *serialPort) follow(ctx context.Context, conn net.Conn, mark int64) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	tick := time.NewTicker(serialEvery)
	defer tick.Stop()
	var file *os.File
	for {
		select {
		case <-ctx.Done():
			if file != nil {
				_ = file.Close()
			}
			return
		case <-tick.C:
		}
		if file == nil {
			f, err := os.Open(s.console.File)
			if err != nil {
				continue // not switched on yet
			}
			file = f
			if _, err := file.Seek(mark, io.SeekStart); err != nil {
				_ = file.Close()
				return
			}
		}
		if _, err := io.Copy(conn, file); err != nil {
			_ = file.Close()
			return
		}
	}
}

// close ends the port and what is connected to it.
func (s *serialPort) close() {
	s.cancel()
	_ = s.listen.Close()
	s.wg.Wait()
}
