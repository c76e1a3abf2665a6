package redfish

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// rootPath is where every Redfish service begins.
const rootPath = "/redfish/v1"

// kind is what a request is for.
type kind int

const (
	forReading kind = iota
	forLogin
	forLogout
	forChange
)

// RoundTrip sends one request of gofish, if the rules of the package allow
// it, and reads its answer.
func (c *call) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := c.bound()
	err := c.allowed(ctx) // outcome sees for itself that the time was up
	k := forReading
	if err == nil {
		if k, err = c.admit(req); err != nil {
			_ = c.refuse(err) // err says it already
		}
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	if k == forChange {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(httptrace.GotConnInfo) { c.note(func(r *record) { r.sent = true }) },
		})
	}
	out := req.Clone(ctx)
	out.Close = false // gofish asks for a new connection each time
	resp, err := c.transport.RoundTrip(out)
	if err != nil {
		c.note(func(r *record) { r.network = err })
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	resp.Body.Close()
	switch {
	case k == forChange && success(resp.StatusCode):
		// Accepted, whatever the rest of the answer is.
		c.note(func(r *record) { r.accepted = true })
	case err != nil:
		c.note(func(r *record) { r.network = err })
		return nil, err
	case len(body) > maxBody:
		return nil, c.refuse(errs.New(errs.Internal, "the answer to %s is longer than %d bytes", req.URL.Path, maxBody))
	}
	if !success(resp.StatusCode) {
		c.failed(k, req.URL.Path, resp.StatusCode, body)
	} else if body, err = c.accept(k, req, resp, body); err != nil {
		return nil, c.refuse(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

func success(status int) bool { return status >= 200 && status < 300 }

// admit tells what a request is for, and refuses what may not be sent.
func (c *call) admit(req *http.Request) (kind, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if c.requests > maxRequests {
		return forReading, errs.New(errs.Internal, "the BMC's links do not end: more than %d requests", maxRequests)
	}
	host := req.URL.Hostname() + ":" + req.URL.Port()
	if req.URL.Scheme != "https" || host != c.set.host+":"+c.set.port || req.URL.User != nil {
		return forReading, errs.New(errs.Internal, "the BMC has a link to somewhere else, which is not followed")
	}
	if req.Header.Get("Authorization") != "" {
		return forReading, errs.New(errs.Internal, "a password outside a login is not sent")
	}
	switch {
	case req.Method == http.MethodGet || req.Method == http.MethodHead:
		return forReading, nil
	case req.Method == http.MethodPost && c.token == "":
		return forLogin, nil
	case req.Method == http.MethodDelete && c.session != "" && req.URL.Path == c.session:
		return forLogout, nil
	case c.grant == nil:
		return forChange, errs.New(errs.Internal, "a call that reads may not send %s", req.Method)
	case c.seen.changes > 0 && !c.seen.refused:
		return forChange, errs.New(errs.Internal, "a call may change the machine once only")
	}
	c.seen.changes++
	c.seen.refused = false
	return forChange, nil
}

// redirect lets a BMC correct the spelling of a path that is read.
func (c *call) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > 2 || req.Method != http.MethodGet {
		return http.ErrUseLastResponse
	}
	return nil
}

func (c *call) note(f func(*record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.seen)
}

// refuse keeps the first refusal: those after it follow from it.
func (c *call) refuse(err error) error {
	c.note(func(r *record) {
		if r.refusal == nil {
			r.refusal = err
		}
	})
	return err
}

// failed records an answer that is no success.
func (c *call) failed(k kind, path string, status int, body []byte) {
	if k == forLogout {
		return // the session has ended in its own way
	}
	message := c.words(body)
	c.note(func(r *record) {
		r.failed, r.failedURL, r.message = status, path, message
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			if k == forLogin {
				r.denied = true
				return
			}
			r.right, r.expired = true, status == http.StatusUnauthorized
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			// Perhaps carried out, or wanted later: no reason for
			// another form of the same request.
		default:
			if k == forLogin && bytes.Contains(body, []byte("UnauthorizedLogin")) {
				r.denied = true // some BMCs answer 400
			}
			if r.refused = k == forChange && status >= 400 && status < 500; r.refused {
				r.sent = false // it is known to have done nothing
			}
		}
	})
}

// accept checks and adapts the answer of a request that succeeded.
func (c *call) accept(k kind, req *http.Request, resp *http.Response, body []byte) ([]byte, error) {
	switch {
	case k == forLogin:
		return body, c.loggedInAs(resp, body)
	case k != forReading || req.Method != http.MethodGet:
		return body, nil
	}
	// gofish does not survive an answer that is not an object.
	var obj map[string]json.RawMessage
	if err := json.Unmarshal(body, &obj); err != nil || obj == nil {
		return nil, errs.New(errs.Internal, "the answer to %s is not Redfish: not a JSON object", req.URL.Path)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.TrimRight(req.URL.Path, "/") == rootPath && c.systems == "" {
		var r root
		_ = json.Unmarshal(body, &r) // what is of another shape is missing
		c.root, c.systems = r, r.systems()
	}
	if c.systems != "" && strings.TrimRight(req.URL.Path, "/") == c.systems {
		return c.narrow(obj)
	}
	return body, nil
}

func (c *call) loggedInAs(resp *http.Response, body []byte) error {
	location := resp.Header.Get("Location")
	if location == "" {
		var s struct {
			ID string `json:"@odata.id"`
		}
		_ = json.Unmarshal(body, &s) // an empty location is refused below
		location = s.ID
		resp.Header.Set("Location", location)
	}
	u, err := url.Parse(location)
	token := resp.Header.Get("X-Auth-Token")
	if err != nil || !strings.HasPrefix(u.Path, "/") || token == "" {
		return errs.New(errs.Internal, "the answer to the login is not Redfish: it lacks a token or a location")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.session = token, u.Path
	return nil
}

// narrow leaves in the collection of systems only the one that the call is
// about.
func (c *call) narrow(obj map[string]json.RawMessage) ([]byte, error) {
	type link struct {
		ID string `json:"@odata.id"`
	}
	var members []link
	if err := json.Unmarshal(obj["Members"], &members); err != nil {
		return nil, errs.New(errs.Internal, "the collection of systems is not Redfish: no members")
	}
	var ids []string
	for _, m := range members {
		if m.ID != "" && len(ids) < maxMembers {
			ids = append(ids, m.ID)
		}
	}
	want := c.set.system
	switch {
	case want != "":
		found := false
		for _, id := range ids {
			if strings.TrimRight(id, "/") == want {
				want, found = id, true
			}
		}
		if !found {
			return nil, errs.About(errs.Invalid, keySystem, "the BMC has no system %s, it has: %s", want, clean(strings.Join(ids, ", ")))
		}
	case len(ids) == 1:
		want = ids[0]
	case len(ids) == 0:
		return nil, errs.New(errs.Internal, "the BMC has no system")
	default:
		return nil, errs.About(errs.Invalid, keySystem, "the BMC has several systems, set %s to one of: %s", keySystem, clean(strings.Join(ids, ", ")))
	}
	return json.Marshal(map[string]any{"Members": []link{{want}}, "Members@odata.count": 1})
}

// errNoAnswer stands for a failure without a cause of its own.
var errNoAnswer = errors.New("no answer")
