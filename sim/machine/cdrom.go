package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ironring/ironring/agent"
)

// maxMedium bounds a boot medium; ours are some 50 MB.
const maxMedium = 512 << 20

// mediumLimit is how long a BMC may take to read a medium.
const mediumLimit = 2 * time.Minute

// cdrom boots the medium in the BMC's CD drive: it reads it as the BMC does,
// and finds the kernel line in the loader's configuration. ok is false when
// there is nothing to boot.
func cdrom(ctx context.Context, image string) (line agent.Line, ok bool, err error) {
	if image == "" {
		return line, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, mediumLimit)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, image, nil)
	if err != nil {
		return line, false, err
	}
	req.Header.Set("User-Agent", "BMC/simulated")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return line, false, err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end, or given up
	if resp.StatusCode != http.StatusOK {
		return line, false, fmt.Errorf("boot medium: %s", resp.Status)
	}
	iso, err := io.ReadAll(io.LimitReader(resp.Body, maxMedium))
	if err != nil {
		return line, false, fmt.Errorf("boot medium: %w", err)
	}
	text, err := kernelLine(iso)
	if err != nil {
		return line, false, err
	}
	line, err = agent.ParseLine(text)
	return line, err == nil, err
}

// linux is the command of our media's loader that names kernel and line.
var linux = []byte("linux /ironring/vmlinuz ")

// kernelLine finds the line on a medium. A file of an ISO begins at a block,
// after what fills the block before, which may end in anything.
func kernelLine(iso []byte) (string, error) {
	if len(iso) < 17*2048 || string(iso[16*2048+1:16*2048+6]) != "CD001" {
		return "", errors.New("boot medium: no ISO 9660")
	}
	for off := 17 * 2048; off+2048 <= len(iso); off += 2048 {
		if rest, ok := bytes.CutPrefix(iso[off:], linux); ok {
			text, _, _ := bytes.Cut(rest, []byte("\n"))
			return string(text), nil
		}
	}
	return "", errors.New("boot medium: no kernel line")
}
