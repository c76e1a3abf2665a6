package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"unicode"

	"github.com/stmcginnis/gofish/common"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// outcome says what became of a call. What was seen on the wire decides, and
// the caller's error only when that says nothing.
func (c *call) outcome(ctx context.Context, err error) error {
	c.mu.Lock()
	seen := c.seen
	c.mu.Unlock()
	if seen.accepted || err == nil {
		return nil
	}
	ended := drivers.Ended(ctx)
	if ended == nil && c.grant != nil {
		// The socket's deadline may be a moment ahead of the context.
		ended = drivers.CheckGrant(c.grant)
	}
	switch {
	case seen.refusal != nil:
		return seen.refusal
	case seen.denied:
		return errs.New(errs.Denied, "the BMC refuses the credentials (%d %s)%s",
			seen.failed, http.StatusText(seen.failed), seen.said())
	case seen.right:
		return errs.New(errs.Denied, "the BMC took the login and refuses this (%d %s)%s: %w",
			seen.failed, http.StatusText(seen.failed), seen.said(), drivers.ErrRight)
	case ended != nil:
		return c.ended(seen, ended)
	case seen.network != nil:
		return networkError(seen)
	}
	if own := (*errs.Error)(nil); errors.As(err, &own) && !errors.As(err, new(*common.Error)) {
		return own
	}
	if seen.failed != 0 {
		return statusError(seen)
	}
	return errs.New(errs.Internal, "the BMC's answer could not be used: %s", c.scrub(err.Error()))
}

// ended is the outcome of a call that ran out of time or lost its grant.
func (c *call) ended(seen record, ended error) error {
	kind := errs.KindOf(ended)
	if c.grant == nil {
		return errs.New(kind, "the BMC did not answer: %w", ended)
	}
	if seen.sent {
		return errs.New(kind, "the outcome is unknown: %w", ended)
	}
	if kind == errs.Timeout {
		kind = errs.Unreachable
	}
	return errs.New(kind, "nothing was changed: %w", ended)
}

func networkError(seen record) error {
	err := seen.network
	if err := certificateError(err); err != nil {
		return err
	}
	var op *net.OpError
	switch {
	case seen.sent:
		return errs.New(errs.Timeout, "the connection to the BMC was lost, the outcome is unknown: %w", plain(err))
	case errors.As(err, &op) && op.Op == "dial":
		return errs.New(errs.Unreachable, "the BMC cannot be reached: %w", plain(err))
	case errors.Is(plain(err), errNoAnswer):
		return errs.New(errs.Unreachable, "the BMC did not answer in time")
	}
	return errs.New(errs.Unreachable, "the connection to the BMC was lost: %w", plain(err))
}

// plain cuts an error of the network down to what holds nothing of the BMC's.
func plain(err error) error {
	var no syscall.Errno
	var ne net.Error
	switch {
	case errors.As(err, &no):
		return no
	case errors.As(err, &ne) && ne.Timeout():
		return errNoAnswer
	}
	return errors.New(clean(err.Error()))
}

func statusError(seen record) error {
	kind := errs.Internal
	switch seen.failed {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity:
		kind = errs.Invalid
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		kind = errs.Unsupported
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired,
		http.StatusTooManyRequests, http.StatusServiceUnavailable:
		kind = errs.Busy
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		kind = errs.Timeout
	}
	return errs.New(kind, "the BMC answers %d %s to %s%s",
		seen.failed, http.StatusText(seen.failed), clean(seen.failedURL), seen.said())
}

func (r record) said() string {
	if r.message == "" {
		return ""
	}
	return ": " + r.message
}

// words are the sentence in the body of a Redfish error, without our secrets,
// should the BMC repeat them.
func (c *call) words(body []byte) string {
	var e struct {
		Error struct {
			Message string `json:"message"`
			Info    []struct {
				Message string
			} `json:"@Message.ExtendedInfo"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	text := e.Error.Message
	if len(e.Error.Info) > 0 && e.Error.Info[0].Message != "" {
		text = e.Error.Info[0].Message
	}
	return c.scrub(text)
}

// scrub takes secrets out of a text that the BMC may have written.
func (c *call) scrub(text string) string {
	c.mu.Lock()
	secrets := []string{c.set.pass, c.token}
	c.mu.Unlock()
	for _, s := range secrets {
		if s == "" {
			continue
		}
		quoted, _ := json.Marshal(s) // a string always encodes
		text = strings.ReplaceAll(text, s, "******")
		text = strings.ReplaceAll(text, strings.Trim(string(quoted), `"`), "******")
	}
	return clean(text)
}

// clean makes a text from outside fit for a log: one line, bounded.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if r := []rune(text); len(r) > 200 {
		return string(r[:200]) + "..."
	}
	return text
}
