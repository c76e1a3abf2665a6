package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Console is the serial console of a machine: everything that it ever wrote.
type Console struct{ File string }

// Mark is the end of what the console has shown so far.
func (c *Console) Mark() int64 {
	st, err := os.Stat(c.File)
	if err != nil {
		return 0 // not switched on yet
	}
	return st.Size()
}

// Since is what the console has shown after a mark.
func (c *Console) Since(mark int64) ([]byte, error) {
	f, err := os.Open(c.File)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(mark, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// Wait returns the first line after a mark that holds text.
func (c *Console) Wait(ctx context.Context, mark int64, text string, limit time.Duration) (string, error) {
	var found string
	err := Poll(ctx, fmt.Sprintf("%q on the console %s", text, c.File), limit, func() (bool, error) {
		b, err := c.Since(mark)
		if err != nil {
			return false, err
		}
		i := bytes.Index(b, []byte(text))
		if i < 0 {
			return false, nil
		}
		rest := b[i:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return false, nil // the line is not complete
		}
		found = strings.TrimRight(string(rest[:end]), "\r")
		return true, nil
	})
	return found, err
}
