package bmc

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// FaultKind is a way to misbehave.
type FaultKind int

// The faults.
const (
	_             FaultKind = iota
	WrongPassword           // every login and password is refused
	Silent                  // requests are taken and never answered
	SilentTLS               // connections are taken and never answered
	Unavailable             // 503
	Status                  // Fault.Status with a Redfish error
	Rubbish                 // 200 with something that is not Redfish
	Slow                    // answers after Fault.Delay, and acts before that
	SlowStart               // acts and answers after Fault.Delay
	Drop                    // the connection ends instead of an answer, nothing is done
	DropAfter               // it is done, and the connection ends instead of an answer
	Ignore                  // answers success and does nothing
	StaleETag               // requests with If-Match get 412
	MinimalBoot             // the boot override takes target and enabled only
	Echo                    // errors repeat the body of the request
)

// Fault is a fault on demand.
type Fault struct {
	Kind   FaultKind
	Method string        // only requests with this method, "" any
	Path   string        // only paths that contain this, "" any
	Times  int           // only so often, 0 always
	Delay  time.Duration // Slow, SlowStart
	Status int           // Status

	used int
}

// Inject adds faults. The first that fits a request is used.
func (b *BMC) Inject(faults ...Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range faults {
		f.used = 0
		b.faults = append(b.faults, &f)
	}
}

// Heal takes all faults away. Requests that are being kept waiting stay so.
func (b *BMC) Heal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = nil
}

// fault uses up and returns the fault of a kind for a request, nil if none.
func (b *BMC) fault(kind FaultKind, method, path string) *Fault {
	return b.anyFault(method, path, kind)
}

func (b *BMC) anyFault(method, path string, kinds ...FaultKind) *Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		if !slices.Contains(kinds, f.Kind) || (f.Times > 0 && f.used >= f.Times) ||
			(f.Method != "" && f.Method != method) || !strings.Contains(path, f.Path) {
			continue
		}
		f.used++
		return f
	}
	return nil
}

// faulty serves the faults that do not depend on what the request is.
func (b *BMC) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := b.anyFault(r.Method, r.URL.Path, Silent, Unavailable, Status, Rubbish, Slow, SlowStart, Drop, DropAfter)
		if f == nil {
			next.ServeHTTP(w, r)
			return
		}
		// Only a body that has been read lets net/http see a client go.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			fail(w, http.StatusBadRequest, "MalformedJSON", "The body could not be read.")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch f.Kind {
		case Silent:
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case Unavailable:
			w.Header().Set("Retry-After", "30")
			fail(w, http.StatusServiceUnavailable, "ServiceTemporarilyUnavailable", "The service is temporarily unavailable.")
		case Status:
			fail(w, f.Status, "GeneralError", "A fault was asked for.")
		case Rubbish:
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html><body>Please wait while the BMC is initializing\x00\xff</body></html>"))
		case SlowStart:
			if !wait(r, f.Delay) {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		case Slow:
			held := &heldWriter{header: http.Header{}}
			next.ServeHTTP(held, r)
			if !wait(r, f.Delay) {
				panic(http.ErrAbortHandler)
			}
			held.release(w)
		case Drop:
			panic(http.ErrAbortHandler)
		case DropAfter:
			next.ServeHTTP(&heldWriter{header: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		}
	})
}

// wait is false when the client has gone, or the BMC ends, before that.
func wait(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
		return false
	case <-timer.C:
		return true
	}
}

// heldWriter keeps an answer back.
type heldWriter struct {
	header http.Header
	status int
	body   []byte
}

func (h *heldWriter) Header() http.Header { return h.header }

func (h *heldWriter) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *heldWriter) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	h.body = append(h.body, p...)
	return len(p), nil
}

func (h *heldWriter) release(w http.ResponseWriter) {
	for k, v := range h.header {
		w.Header()[k] = v
	}
	if h.status != 0 {
		w.WriteHeader(h.status)
	}
	_, _ = w.Write(h.body)
}
