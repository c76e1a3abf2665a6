package pxe

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

func TestPhoneHomeCall(t *testing.T) {
	const token = "0123456789abcdefABCDEF_-"
	var answer error
	got := ""
	r := newRig(t, func(c *Config) {
		c.PhoneHome = func(_ context.Context, token string, from netip.Addr) error {
			got = token + " " + from.String()
			return answer
		}
	})
	for _, c := range []struct {
		method, path string
		answer       error
		want         int
		reaches      bool
	}{
		{http.MethodPost, token, nil, http.StatusOK, true},
		{http.MethodPost, token, errs.New(errs.Denied, "no"), http.StatusNotFound, true},
		{http.MethodPost, token, errs.New(errs.WrongState, "over"), http.StatusNotFound, true},
		{http.MethodPost, token, errs.New(errs.NoQuorum, "later"), http.StatusServiceUnavailable, true},
		{http.MethodGet, token, nil, http.StatusMethodNotAllowed, false},
		{http.MethodPost, "short", nil, http.StatusNotFound, false},
		{http.MethodPost, strings.Repeat("a", 129), nil, http.StatusNotFound, false},
		{http.MethodPost, token + "/x", nil, http.StatusNotFound, false},
		{http.MethodPost, "", nil, http.StatusNotFound, false},
	} {
		got, answer = "", c.answer
		status, body := r.http(t, c.method, r.url(pathPhoneHome+c.path), loopMachine, nil)
		if status != c.want || (got != "") != c.reaches || got != "" && got != token+" "+loopMachine {
			t.Errorf("%s %q: %d, reached %q", c.method, c.path, status, got)
		}
		if strings.Contains(string(body), token) || strings.Contains(r.logged(), token) {
			t.Errorf("%s %q: the token is in the answer or the log", c.method, c.path)
		}
	}
}
