package fake

import (
	"context"
	"io"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// console is one session of a reader.
type console struct {
	text  chan string
	ended chan struct{} // closed by its reader
}

// Print shows a text on the serial console: to the reader of the session that
// is open, else to nobody. It returns when the reader has it.
func (b *BMC) Print(text string) {
	b.mu.Lock()
	c := b.console
	b.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case c.text <- text:
	case <-c.ended:
	}
}

// ReadConsole implements drivers.ConsoleReader. Faults are of the call that
// opens the session.
func (d *Driver) ReadConsole(ctx context.Context, t drivers.Target, g drivers.Grant, opened func(), w io.Writer) error {
	ctx, stop, err := drivers.Bind(ctx, g)
	if err != nil {
		return err
	}
	defer stop()
	b, _, err := d.call(ctx, t, Call{Verb: ReadConsole, Token: g.Token()}, false)
	if err != nil {
		return err
	}
	c := &console{text: make(chan string), ended: make(chan struct{})}
	defer close(c.ended)
	b.mu.Lock()
	busy := b.console != nil
	if !busy {
		b.console = c
	}
	b.mu.Unlock()
	if busy {
		return errs.New(errs.Busy, "the BMC's console is open in another session")
	}
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.console = nil
	}()
	opened()
	for {
		select {
		case <-ctx.Done():
			return drivers.Ended(ctx)
		case text := <-c.text:
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		}
	}
}

// ConsoleOpen says whether somebody reads the console.
func (b *BMC) ConsoleOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.console != nil
}
