// Package fetch reads one file over HTTP as a single stream of bytes, however
// often connections break and servers fail on the way.
//
// It is for files of many gigabytes that several servers may offer. Invariants:
//
//   - The bytes come once each and in order; after a break the file goes on
//     where it stopped (Range), never from the start.
//   - A file that changed meanwhile is an error, not a mixture. It is noticed
//     by ETag, Last-Modified and length; what these cannot show, the caller's
//     digest does.
//   - Errors name the URL without user, password and query, and repeat a server's
//     words cut and without control characters (say.go).
//   - What asking again does not mend ends the file at once: where no URL may
//     be read (401, 403: errs.Denied) or has it (404, 410: errs.NotFound), or
//     the file is another one now (errs.Conflict). Time-outs, broken
//     connections, 408, 429 and 5xx are tried again.
//
// It is used by the agent, which writes images and config drives, and by the
// peers, which keep images as artifacts. A Stream belongs to one goroutine.
// Start reading at Read; answer.go judges what servers say.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// Config says what to read.
type Config struct {
	URLs       []string          // tried in turn; the same bytes behind each
	Offset     int64             // where to begin: how many bytes the caller has from before
	Transport  http.RoundTripper // nil: one of its own
	TLSOnly    bool              // a redirect away from https is refused
	Logger     *slog.Logger
	Stall      time.Duration // a connection without a byte for so long is given up; 15 s
	NoProgress time.Duration // nothing from anywhere for so long is an error; 2 min
	PauseMin   time.Duration // first pause after a failure; 100 ms
	PauseMax   time.Duration // longest pause; 5 s
	// Trouble hears at once of each attempt that failed, in words that may be
	// shown. It is called by the goroutine that reads. nil does nothing.
	Trouble func(err error)
}

// Stream is the file as it arrives.
type Stream struct {
	cfg    Config
	ctx    context.Context // of Open: an io.Reader has no other way to be told
	client *http.Client
	own    *http.Transport // to be emptied at Close, nil if the transport is the caller's
	src    []*source
	next   int

	total    int64 // -1: not known yet
	off      int64 // where in the file Read is
	end      int64 // where to stop, of a piece; 0: at the end of the file
	requests int

	body   io.ReadCloser // nil: not connected
	cur    *source
	cancel context.CancelFunc // of the request behind body
	alive  time.Time          // when the last byte came or Read was entered
	pause  time.Duration
	last   error // why the last attempt failed
	done   bool
}

// source is one URL and what its server said of the file.
type source struct {
	url       string
	shown     string // for people
	etag      string // strong ones only
	modified  string
	dead      error
	connected bool
}

// Open checks the URLs and connects to the first server that has the file, so
// that Size is known when it returns.
func Open(ctx context.Context, cfg Config) (*Stream, error) {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&cfg.Stall, 15 * time.Second}, {&cfg.NoProgress, 2 * time.Minute}, {&cfg.PauseMin, 100 * time.Millisecond}, {&cfg.PauseMax, 5 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stream{cfg: cfg, ctx: ctx, total: -1, off: cfg.Offset, alive: time.Now()}
	if len(cfg.URLs) == 0 {
		return nil, errs.New(errs.Invalid, "no URL given")
	}
	for _, raw := range cfg.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errs.New(errs.Invalid, "%s is not an http or https URL", seal.MaskURL(raw))
		}
		s.src = append(s.src, &source{url: raw, shown: seal.MaskURL(raw)})
	}
	tr := cfg.Transport
	if tr == nil {
		s.own = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableCompression: true,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: cfg.Stall,
		}
		tr = s.own
	}
	s.client = &http.Client{Transport: redirects{tr}, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		// The query of the first URL may hold a secret.
		req.Header.Del("Referer")
		if len(via) >= 10 {
			return errs.New(errs.Invalid, "more than 10 redirects")
		}
		if cfg.TLSOnly && req.URL.Scheme != "https" {
			return errs.New(errs.Invalid, "redirected to %s, away from https", seal.MaskURL(req.URL.String()))
		}
		return nil
	}}
	if err := s.connect(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Size is the length of the file in bytes, -1 when no server says it.
func (s *Stream) Size() int64 { return s.total }

// Requests is how many HTTP requests were sent: 1 when nothing broke.
func (s *Stream) Requests() int { return s.requests }

// Source is the URL being read from, fit to be shown.
func (s *Stream) Source() string {
	if s.cur == nil {
		return s.src[s.next%len(s.src)].shown
	}
	return s.cur.shown
}

// ReadAt implements io.ReaderAt by requests of their own, for the few pieces
// that are needed out of turn; what Read gives next is not changed. It belongs
// to the goroutine that reads. A server that does not know byte ranges is
// errs.Unsupported.
func (s *Stream) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.total >= 0 && off >= s.total {
		return 0, io.EOF
	}
	piece := &Stream{
		cfg: s.cfg, ctx: s.ctx, client: s.client, src: s.src, next: s.next,
		total: s.total, off: off, end: off + int64(len(p)), alive: time.Now(),
	}
	defer piece.drop()
	n, err := io.ReadFull(piece, p)
	s.requests += piece.requests
	s.alive = time.Now()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Close ends the request that runs. The Stream is of no use afterwards.
func (s *Stream) Close() error {
	s.drop()
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return nil
}

func (s *Stream) drop() {
	if s.body != nil {
		s.cancel()
		s.body.Close()
		s.body = nil
	}
}

// Read implements io.Reader. It blocks over breaks and returns an error only
// when the file cannot be had or has changed, or when the context ends.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.alive = time.Now() // what the caller did meanwhile is not the servers' fault
	for !s.done {
		if s.body == nil {
			if err := s.connect(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := s.readSome(p)
		if n > 0 {
			s.off += int64(n)
			s.alive, s.pause = time.Now(), 0
		}
		switch {
		case s.total >= 0 && s.off > s.total:
			return 0, errs.New(errs.Invalid, "%s sends more than the %d bytes it announced", s.cur.shown, s.total)
		case s.total >= 0 && s.off == s.total, s.end > 0 && s.off == s.end, errors.Is(err, io.EOF) && s.total < 0:
			s.done = true
		case err != nil:
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			s.failed(fmt.Errorf("broken off after %d of %s: %w", s.off, s.sizeText(), bare(err)))
		}
		if n > 0 {
			return n, nil
		}
	}
	s.drop()
	return 0, io.EOF
}

func (s *Stream) sizeText() string {
	if s.total < 0 {
		return "an unknown number of bytes"
	}
	return fmt.Sprintf("%d bytes", s.total)
}

// readSome reads from the open connection and gives it up when it stalls.
// Only time spent here counts: a slow disk is not a slow server.
func (s *Stream) readSome(p []byte) (int, error) {
	stalled := time.AfterFunc(s.cfg.Stall, s.cancel)
	n, err := s.body.Read(p)
	if !stalled.Stop() && err != nil && s.ctx.Err() == nil {
		err = fmt.Errorf("no byte for %s", s.cfg.Stall)
	}
	return n, err
}

// failed gives the connection up and makes the next attempt go to another URL.
func (s *Stream) failed(err error) {
	s.drop()
	src := s.src[s.next%len(s.src)]
	if src.dead != nil {
		s.last = src.dead // names the URL already
	} else {
		s.last = fmt.Errorf("%s: %w", src.shown, err)
	}
	s.next++
	if s.cfg.Trouble != nil {
		s.cfg.Trouble(s.last)
	}
}

// connect gets s.body, or the error that ends the Stream.
func (s *Stream) connect() error {
	first := s.last == nil
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		src := s.pick()
		if src == nil {
			return s.dead()
		}
		if !first {
			if idle := time.Since(s.alive); idle > s.cfg.NoProgress {
				return s.given(idle)
			}
			s.cfg.Logger.Warn("the image is asked for again", "url", src.shown, "offset", s.off, "err", s.last)
			if err := s.rest(); err != nil {
				return err
			}
		}
		first = false
		err := s.ask(src)
		if err == nil {
			return nil
		}
		if fatal := (*fatalError)(nil); errors.As(err, &fatal) {
			return fatal.err
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		s.failed(err)
	}
}

// pick is the next URL that is not known to be dead.
func (s *Stream) pick() *source {
	for range s.src {
		if c := s.src[s.next%len(s.src)]; c.dead == nil {
			return c
		}
		s.next++
	}
	return nil
}

// rest pauses between attempts, but not beyond the limit for no progress.
func (s *Stream) rest() error {
	s.pause = max(s.cfg.PauseMin, min(2*s.pause, s.cfg.PauseMax))
	d := s.pause/2 + rand.N(s.pause/2+1)
	return clock.Pause(s.ctx, min(d, max(0, s.cfg.NoProgress-time.Since(s.alive)+time.Millisecond)))
}

// dead is the error when every URL was refused.
func (s *Stream) dead() error {
	var all []error
	for _, c := range s.src {
		all = append(all, c.dead)
	}
	return errs.New(errs.KindOf(all[0]), "%w", errors.Join(all...))
}

// given is the error when nothing came for too long.
func (s *Stream) given(idle time.Duration) error {
	kind := errs.Unreachable
	for _, c := range s.src {
		if c.connected {
			kind = errs.Timeout
		}
	}
	return errs.New(kind, "no progress for %s at %d of %s: %w", idle.Round(time.Second/10), s.off, s.sizeText(), s.last)
}
