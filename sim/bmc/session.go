package bmc

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// session is a Redfish session; its fields are guarded by BMC.mu.
type session struct {
	id    string
	user  string
	token string
	used  time.Time
}

// who is the client of a request.
type who struct {
	user    string
	session string
	addr    string
}

func (w who) String() string { return w.user + "@" + w.addr }

// same compares without telling by its time where the difference is.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func (b *BMC) passwordFits(r *http.Request, user, pass string) bool {
	fits := same(user, b.cfg.Username) && same(pass, b.pass()) &&
		b.fault(WrongPassword, r.Method, r.URL.Path) == nil
	if !fits {
		b.count(func(s *Stats) { s.Refused++ })
	}
	return fits
}

func (b *BMC) pass() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.password
}

// SetPassword changes the password of the BMC's user; its sessions go on.
func (b *BMC) SetPassword(password string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.password = password
}

// authenticate finds out who asks.
func (b *BMC) authenticate(r *http.Request) (who, bool) {
	if user, pass, ok := r.BasicAuth(); ok {
		b.count(func(s *Stats) { s.Basic++ })
		return who{user: user, addr: r.RemoteAddr}, b.passwordFits(r, user, pass)
	}
	token := r.Header.Get("X-Auth-Token")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked()
	for _, s := range b.sessions {
		if token != "" && same(s.token, token) {
			s.used = time.Now()
			return who{user: s.user, session: s.id, addr: r.RemoteAddr}, true
		}
	}
	b.stats.Refused++
	return who{}, false
}

// expireLocked forgets sessions that were idle for too long.
func (b *BMC) expireLocked() {
	for id, s := range b.sessions {
		if time.Since(s.used) > b.cfg.SessionTTL {
			delete(b.sessions, id)
		}
	}
}

// DropSessions forgets all sessions, as a restart of a BMC does.
func (b *BMC) DropSessions() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.sessions)
}

func (b *BMC) sessionIDs() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked()
	ids := make([]string, 0, len(b.sessions))
	for id := range b.sessions {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// openSession is POST to the collection of sessions.
func (b *BMC) openSession(w http.ResponseWriter, r *http.Request) {
	var in struct{ UserName, Password *string }
	if !decode(w, r, &in) {
		return
	}
	if in.UserName == nil || in.Password == nil {
		fail(w, http.StatusBadRequest, "PropertyMissing", "The properties UserName and Password are required.")
		return
	}
	if !b.passwordFits(r, *in.UserName, *in.Password) {
		text := "The login was refused."
		if b.fault(Echo, r.Method, r.URL.Path) != nil {
			text = "The login of " + *in.UserName + " with " + *in.Password + " was refused."
		}
		fail(w, http.StatusUnauthorized, "ResourceAtUriUnauthorized", text)
		return
	}
	b.mu.Lock()
	b.expireLocked()
	if len(b.sessions) >= b.cfg.MaxSessions {
		b.mu.Unlock()
		fail(w, http.StatusServiceUnavailable, "SessionLimitExceeded", "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.")
		return
	}
	b.nextID++
	s := &session{id: strconv.FormatUint(b.nextID, 10), user: *in.UserName, token: rand.Text(), used: time.Now()}
	b.sessions[s.id] = s
	b.stats.Logins++
	b.stats.MostSessions = max(b.stats.MostSessions, len(b.sessions))
	b.mu.Unlock()
	path := sessionsPath + "/" + s.id
	w.Header().Set("X-Auth-Token", s.token)
	w.Header().Set("Location", path)
	reply(w, http.StatusCreated, b.sessionBody(s.id, s.user))
}

func (b *BMC) sessionBody(id, user string) object {
	return resource(sessionsPath+"/"+id, "Session.v1_7_1.Session", id, "User Session", object{"UserName": user})
}

func (b *BMC) getSession(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	s := b.sessions[r.PathValue("id")]
	b.mu.Unlock()
	if s == nil {
		notFound(w, r)
		return
	}
	reply(w, http.StatusOK, b.sessionBody(s.id, s.user))
}

func (b *BMC) closeSession(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	_, ok := b.sessions[r.PathValue("id")]
	delete(b.sessions, r.PathValue("id"))
	if ok {
		b.stats.Logouts++
	}
	b.mu.Unlock()
	if !ok {
		notFound(w, r)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
