package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// fatalError ends the Stream: asking again cannot help.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

func fatal(kind errs.Kind, format string, args ...any) error {
	return &fatalError{errs.New(kind, format, args...)}
}

// ask sends one request for the rest of the file and sets body when the
// answer fits what is known of it.
func (s *Stream) ask(src *source) error {
	ctx, cancel := context.WithCancel(s.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.url, nil)
	if err != nil {
		cancel()
		return fatal(errs.Invalid, "%s is not a URL", src.shown)
	}
	// The digest is over the bytes as served, so no coding on the way.
	req.Header.Set("Accept-Encoding", "identity")
	if s.end > 0 {
		// No If-Range: an answer with the whole file is of no use here.
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.off, s.end-1))
	} else if s.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.off))
		if v := src.validator(); v != "" {
			req.Header.Set("If-Range", v)
		}
	}
	s.requests++
	// The answer's headers must come in time too, whoever's transport it is.
	stalled := time.AfterFunc(s.cfg.Stall, cancel)
	resp, err := s.client.Do(req)
	late := !stalled.Stop()
	if err != nil {
		cancel()
		if late && s.ctx.Err() == nil {
			return fmt.Errorf("no answer for %s", s.cfg.Stall)
		}
		return bare(err)
	}
	src.connected = true
	skip, err := s.judge(src, resp)
	if err != nil {
		cancel()
		resp.Body.Close()
		return err
	}
	s.body, s.cancel, s.cur = resp.Body, cancel, src
	if skip > 0 {
		return s.skip(skip)
	}
	return nil
}

// judge compares an answer with what is known of the file. skip is how many
// bytes of it we have already.
func (s *Stream) judge(src *source, resp *http.Response) (skip int64, err error) {
	code := resp.StatusCode
	switch {
	case code == http.StatusOK && s.end > 0:
		src.dead = errs.New(errs.Unsupported, "%s: the server does not do byte ranges, which this image needs", src.shown)
	case code == http.StatusOK, code == http.StatusPartialContent && (s.off > 0 || s.end > 0):
	case code == http.StatusRequestedRangeNotSatisfiable:
		return 0, fatal(errs.Conflict, "%s changed while it was read: it ends before byte %d (%s)", src.shown, s.off, resp.Header.Get("Content-Range"))
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return 0, fmt.Errorf("%s", resp.Status)
	case code == http.StatusNotFound, code == http.StatusGone:
		src.dead = errs.New(errs.NotFound, "%s: %s", src.shown, resp.Status)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		src.dead = errs.New(errs.Denied, "%s: %s", src.shown, resp.Status)
	default:
		src.dead = errs.New(errs.Invalid, "%s: %s", src.shown, resp.Status)
	}
	if src.dead != nil {
		return 0, src.dead
	}
	if resp.Uncompressed || resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity" {
		src.dead = errs.New(errs.Invalid, "%s: the server codes the file as %q though it was asked not to", src.shown, resp.Header.Get("Content-Encoding"))
		return 0, src.dead
	}
	total, skip := resp.ContentLength, s.off
	if code == http.StatusPartialContent {
		start, all, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != s.off {
			src.dead = errs.New(errs.Invalid, "%s: asked for bytes from %d, got %q", src.shown, s.off, resp.Header.Get("Content-Range"))
			return 0, src.dead
		}
		total, skip = all, 0
	}
	if s.total >= 0 && total >= 0 && total != s.total {
		return 0, fatal(errs.Conflict, "%s changed while it was read: it had %d bytes and has %d", src.shown, s.total, total)
	}
	if err := src.same(resp.Header); err != nil {
		return 0, err
	}
	if total >= 0 {
		s.total = total
	}
	return skip, nil
}

// same compares the answer's validators with those that this URL gave before,
// and remembers them.
func (c *source) same(h http.Header) error {
	etag, modified := h.Get("ETag"), h.Get("Last-Modified")
	if strings.HasPrefix(etag, "W/") {
		etag = ""
	}
	if c.etag != "" && etag != "" && etag != c.etag {
		return fatal(errs.Conflict, "%s changed while it was read: its ETag was %s and is %s", c.shown, c.etag, etag)
	}
	if c.modified != "" && modified != "" && modified != c.modified {
		return fatal(errs.Conflict, "%s changed while it was read: it is of %s now, was of %s", c.shown, modified, c.modified)
	}
	if etag != "" {
		c.etag = etag
	}
	if modified != "" {
		c.modified = modified
	}
	return nil
}

// validator is what If-Range can hold.
func (c *source) validator() string {
	if c.etag != "" {
		return c.etag
	}
	return c.modified
}

// skip reads over what we have: the server does not do ranges.
func (s *Stream) skip(n int64) error {
	buf := make([]byte, 64<<10)
	for n > 0 {
		k, err := s.readSome(buf[:min(n, int64(len(buf)))])
		n -= int64(k)
		if n > 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			s.drop()
			return fmt.Errorf("broken off before byte %d: %w", s.off, bare(err))
		}
	}
	return nil
}

// parseContentRange reads "bytes 5-9/10"; all is -1 for "*".
func parseContentRange(v string) (start, all int64, ok bool) {
	v, ok = strings.CutPrefix(v, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, size, ok := strings.Cut(v, "/")
	if !ok {
		return 0, 0, false
	}
	from, to, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, false
	}
	start, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(to, 10, 64)
	if err1 != nil || err2 != nil || start < 0 || end < start {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	all, err := strconv.ParseInt(size, 10, 64)
	if err != nil || all <= end {
		return 0, 0, false
	}
	return start, all, true
}
