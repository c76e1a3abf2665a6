package pxe

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// pathPhoneHome is where a deployed system says that it runs: POST
// /phone-home/<token>, at any peer. What it sends is not looked at.
const pathPhoneHome = "/phone-home/"

// maxPhoneHome bounds what is read of the call's body, so that the connection
// can be used again; the rest is cut off.
const maxPhoneHome = 64 << 10

var validPhoneHome = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}$`)

// phoneHome answers the call of a deployed system. 200 means that it is on
// record: a system that hears anything else calls again, at this or another
// peer. ok is false when the request is for something else.
func (s *httpService) phoneHome(w http.ResponseWriter, r *http.Request) (ok bool) {
	token, ok := strings.CutPrefix(r.URL.Path, pathPhoneHome)
	if !ok {
		return false
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return true
	}
	if s.cfg.PhoneHome == nil || !validPhoneHome.MatchString(token) {
		http.NotFound(w, r)
		return true
	}
	_, _ = io.CopyN(io.Discard, r.Body, maxPhoneHome)
	err := s.cfg.PhoneHome(r.Context(), token, remoteOf(r))
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
