package fetch

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/ironring/ironring/internal/errs"
)

// said is what a message repeats of a server's words.
func said(v string) string { return errs.Clip(printable(v)) }

func printable(v string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, v)
}

// bare makes an error of net/http fit to be shown: without the URL, which may
// hold secrets, and without long or unprintable words of a server.
func bare(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	const most = 300 // bytes: the names and addresses of a failed connection fit
	text := printable(err.Error())
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	if text == err.Error() {
		return err
	}
	return &cut{text, err}
}

// cut is an error whose words are not fit to be shown.
type cut struct {
	text string
	err  error
}

func (e *cut) Error() string { return e.text }
func (e *cut) Unwrap() error { return e.err }

// redirects refuses a redirect to what is no URL before net/http does, whose
// error repeats it whole, query included.
type redirects struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (r redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode/100 != 3 {
		return resp, err
	}
	if _, perr := req.URL.Parse(resp.Header.Get("Location")); perr != nil {
		resp.Body.Close()
		return nil, errs.New(errs.Invalid, "a redirect (%s) to what is no URL", said(resp.Status))
	}
	return resp, nil
}
