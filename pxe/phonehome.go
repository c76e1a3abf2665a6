package pxe

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/sources"
)

// maxPhoneHome bounds what is read of the call's body, so that the connection
// can be used again; the rest is cut off.
const maxPhoneHome = 64 << 10

// Bounds of these calls at one peer, as for enrolments: each may cost a
// question to the leader and an entry of the log, and anybody can call. A rack
// that boots at once behind one router stays below them; a system that is told
// to wait calls again.
var (
	homesPerHost = sources.Rate{PerSecond: 20, Burst: 40}
	homesInAll   = sources.Rate{PerSecond: 100, Burst: 200}
)

func newHomes(c clock.Clock) *sources.Limits {
	return sources.New(sources.Config{Calls: "calls", Host: homesPerHost, All: homesInAll, Passed: c.Elapsed})
}

// phoneHome answers the call of a deployed system, POST /phone-home/<token>, the
// one write that the boot listener takes; what it sends is not looked at. 200
// means that it is on record, 404 that nobody waits for it, for good: a system
// that hears anything else calls again, at this or another peer. ok is false when the request is for something else.
func (s *httpService) phoneHome(w http.ResponseWriter, r *http.Request) (ok bool) {
	token, ok := strings.CutPrefix(r.URL.Path, bootpath.PhoneHome)
	if !ok {
		return false
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return true
	}
	if s.cfg.PhoneHome == nil || !bootpath.ValidToken(token) {
		http.NotFound(w, r)
		return true
	}
	from := remoteOf(r)
	if err := s.homes.Allow(from); err != nil { // before anything is looked up
		w.Header().Set("Retry-After", "2")
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return true
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxPhoneHome)
	err := s.cfg.PhoneHome(r.Context(), token, from)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, errs.Denied), errors.Is(err, errs.NotFound), errors.Is(err, errs.WrongState):
		http.NotFound(w, r) // nobody waits for it: nothing is said about what there is
	default:
		w.Header().Set("Retry-After", "2")
		http.Error(w, "not recorded, try again", http.StatusServiceUnavailable)
	}
	return true
}
