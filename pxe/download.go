package pxe

import (
	"io"
	"net/http"
	"time"
)

// How a download is cut up: after each chunk the connection gets a new
// deadline, so a slow client may take as long as it moves.
const (
	chunk         = 1 << 20
	chunkTimeout  = 60 * time.Second
	progressEvery = 20 * time.Second
)

// download counts what a client took and keeps the connection's deadline
// ahead of it. It passes files to the connection by ReadFrom, so that the
// kernel copies them.
type download struct {
	http.ResponseWriter
	ctl      *http.ResponseController
	progress func(sent int64, took time.Duration)
	start    time.Time
	told     time.Time // of the last progress
	status   int
	sent     int64
	err      error // of writing
}

func newDownload(w http.ResponseWriter, progress func(int64, time.Duration)) *download {
	now := time.Now()
	d := &download{ResponseWriter: w, ctl: http.NewResponseController(w), progress: progress,
		start: now, told: now, status: http.StatusOK}
	d.extend()
	return d
}

// Unwrap lets http.ResponseController find the connection.
func (d *download) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (d *download) WriteHeader(status int) {
	d.status = status
	d.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	d.extend()
	n, err := d.ResponseWriter.Write(p)
	d.count(int64(n), err)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (d *download) ReadFrom(src io.Reader) (int64, error) {
	rf, ok := d.ResponseWriter.(io.ReaderFrom)
	lr, limited := src.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(struct{ io.Writer }{d}, src)
	}
	var total int64
	for lr.N > 0 {
		d.extend()
		want := min(lr.N, chunk)
		// One level of LimitedReader around the file is what net recognises.
		n, err := rf.ReadFrom(&io.LimitedReader{R: lr.R, N: want})
		lr.N -= n
		total += n
		d.count(n, err)
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

func (d *download) count(n int64, err error) {
	d.sent += n
	if err != nil {
		d.err = err
	}
	if now := time.Now(); now.Sub(d.told) >= progressEvery {
		d.told = now
		d.progress(d.sent, now.Sub(d.start))
	}
}

// extend gives the client time for one more chunk.
func (d *download) extend() {
	_ = d.ctl.SetWriteDeadline(time.Now().Add(chunkTimeout)) // fails where there is no connection: in tests
}
