package fetch

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// judge compares an answer with what is known of the file. skip is how many
// bytes of it we have already.
func (s *Stream) judge(src *source, resp *http.Response) (skip int64, err error) {
	code := resp.StatusCode
	switch {
	case code == http.StatusOK && s.end > 0:
		src.dead = errs.New(errs.Unsupported, "%s: the server does not do byte ranges, which this image needs", src.shown)
	case code == http.StatusOK, code == http.StatusPartialContent && (s.off > 0 || s.end > 0):
	case code == http.StatusRequestedRangeNotSatisfiable:
		return 0, fatal(errs.Conflict, "%s changed while it was read: it ends before byte %d (%s)", src.shown, s.off, said(resp.Header.Get("Content-Range")))
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return 0, fmt.Errorf("%s", said(resp.Status))
	case code == http.StatusNotFound, code == http.StatusGone:
		src.dead = errs.New(errs.NotFound, "%s: %s", src.shown, said(resp.Status))
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		src.dead = errs.New(errs.Denied, "%s: %s", src.shown, said(resp.Status))
	default:
		src.dead = errs.New(errs.Invalid, "%s: %s", src.shown, said(resp.Status))
	}
	if src.dead != nil {
		return 0, src.dead
	}
	if resp.Uncompressed || resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity" {
		src.dead = errs.New(errs.Invalid, "%s: the server codes the file as %q though it was asked not to", src.shown, said(resp.Header.Get("Content-Encoding")))
		return 0, src.dead
	}
	total, skip := resp.ContentLength, s.off
	if code == http.StatusPartialContent {
		start, all, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != s.off {
			src.dead = errs.New(errs.Invalid, "%s: asked for bytes from %d, got %q", src.shown, s.off, said(resp.Header.Get("Content-Range")))
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
		return fatal(errs.Conflict, "%s changed while it was read: its ETag was %s and is %s", c.shown, said(c.etag), said(etag))
	}
	if c.modified != "" && modified != "" && modified != c.modified {
		return fatal(errs.Conflict, "%s changed while it was read: it is of %s now, was of %s", c.shown, said(modified), said(c.modified))
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
	start, ok1 := digits(from)
	end, ok2 := digits(to)
	if !ok1 || !ok2 || end < start {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	all, ok = digits(size)
	if !ok || all <= end {
		return 0, 0, false
	}
	return start, all, true
}

// digits reads a number that is digits only: ParseInt takes signs too.
func digits(s string) (int64, bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
