package pxe

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/clock"
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
		status, body := r.http(t, c.method, r.url(bootpath.PhoneHome+c.path), loopMachine, nil)
		if status != c.want || (got != "") != c.reaches || got != "" && got != token+" "+loopMachine {
			t.Errorf("%s %q: %d, reached %q", c.method, c.path, status, got)
		}
		if strings.Contains(string(body), token) || strings.Contains(r.logged(), token) {
			t.Errorf("%s %q: the token is in the answer or the log", c.method, c.path)
		}
	}
}

// passing is a clock that the test moves.
type passing struct {
	clock.System
	passed time.Duration
}

func (p *passing) Elapsed() time.Duration { return p.passed }

// Calls are bounded before anything is looked up, for each source and in all;
// what one source may not ask takes nothing from the others.
func TestPhoneHomeRate(t *testing.T) {
	now := &passing{passed: time.Hour}
	h := newHomes(now)
	count := func(from netip.Addr, calls int) (ok int) {
		for range calls {
			if h.Allow(from) == nil {
				ok++
			}
		}
		return ok
	}
	first := netip.MustParseAddr("192.0.2.1")
	if n := count(first, 1000); n != homesPerHost.Burst {
		t.Errorf("%d at once from one source", n)
	}
	if n := count(netip.MustParseAddr("192.0.2.2"), 1); n != 1 {
		t.Error("one source takes from another")
	}
	now.passed += time.Second
	if n := count(first, 1000); n != int(homesPerHost.PerSecond) {
		t.Errorf("%d in a second from one source", n)
	}
	now.passed += time.Minute
	all, from := 0, first
	for range 2000 {
		from = from.Next()
		all += count(from, 1)
	}
	if all != homesInAll.Burst {
		t.Errorf("%d at once from all", all)
	}
}

func TestPhoneHomeFlood(t *testing.T) {
	var looked atomic.Int64
	r := newRig(t, func(c *Config) {
		c.PhoneHome = func(context.Context, string, netip.Addr) error {
			looked.Add(1)
			return errs.New(errs.Denied, "nobody waits")
		}
	})
	refused := 0
	for range 100 * homesPerHost.Burst {
		res, _ := r.request(t, http.MethodPost, r.url(bootpath.PhoneHome+"0123456789abcdef"), loopMachine, nil)
		switch {
		case res.StatusCode == http.StatusTooManyRequests && res.Header.Get("Retry-After") != "":
			refused++
		case res.StatusCode != http.StatusNotFound:
			t.Fatalf("status %d", res.StatusCode)
		}
		if refused > 2 {
			break
		}
	}
	if refused == 0 || looked.Load() == 0 {
		t.Errorf("%d calls were refused, %d looked up", refused, looked.Load())
	}
	looked.Store(0)
	if status, _ := r.http(t, http.MethodPost, r.url(bootpath.PhoneHome+"0123456789abcdef"), "127.77.0.60", nil); status != http.StatusNotFound || looked.Load() != 1 {
		t.Errorf("another source: %d, looked up %d", status, looked.Load())
	}
}
