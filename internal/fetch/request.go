package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
