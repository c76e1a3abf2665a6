package lab

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

// badImages is an image server with everything wrong that can be.
//
//	/truncated  breaks off in the middle, as often as it is asked
//	/short      is half of the image, in good order
//	/large      is larger than the disks of machines
//	/held       gives half and then nothing, without an end
type badImages struct {
	*httptest.Server
	good []byte
	held chan struct{} // somebody got half of /held
	gone chan struct{} // and has hung up
}

func startBadImages(good []byte) *badImages {
	s := &badImages{good: good, held: make(chan struct{}, 16), gone: make(chan struct{}, 16)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	return s
}

func (s *badImages) stop() {
	s.CloseClientConnections()
	s.Close()
}

func (s *badImages) serve(w http.ResponseWriter, r *http.Request) {
	half := len(s.good) / 2
	switch r.URL.Path {
	case "/truncated":
		if r.Header.Get("Range") != "" {
			half = 0
		}
		http.ServeContent(&cutWriter{ResponseWriter: w, left: half, then: func() { panic(http.ErrAbortHandler) }},
			r, "", time.Time{}, bytes.NewReader(s.good))
	case "/held":
		http.ServeContent(&cutWriter{ResponseWriter: w, left: half, then: func() {
			s.held <- struct{}{}
			<-r.Context().Done()
			s.gone <- struct{}{}
			panic(http.ErrAbortHandler)
		}}, r, "", time.Time{}, bytes.NewReader(s.good))
	case "/short":
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.good[:half]))
	case "/large":
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeros{}, 0, machineDisk.Bytes+1<<20))
	default:
		http.NotFound(w, r)
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// cutWriter lets some bytes of a body through.
type cutWriter struct {
	http.ResponseWriter
	left int
	then func()
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	m, err := w.ResponseWriter.Write(p[:n])
	if err == nil && n < len(p) {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the client may have gone
		w.then()
	}
	return m, err
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// testImages: an image that cannot be had, or is not what was promised, ends
// in `deploy failed` with the cause; what is on the disk then does not boot;
// and the right image can be deployed right after.
func testImages(t *testing.T, f *fixture) {
	nobody := closedPort(t)
	for _, c := range []struct {
		name, url string
		checksum  string
		clean     bool // not one byte is written
		why       []string
	}{
		{name: "404", url: f.bad.URL + "/missing.raw", clean: true, why: []string{"/missing.raw", "404 Not Found"}},
		{name: "unreachable", url: "http://" + nobody + "/image.raw", clean: true, why: []string{nobody, "connection refused"}},
		{name: "larger than the disk", url: f.bad.URL + "/large", clean: true, why: []string{"/large", "8590983168 bytes, more than the 8589934592", "nothing was written"}},
		{name: "truncated", url: f.bad.URL + "/truncated", why: []string{"/truncated", "no progress", "at 3145728 of 6291456 bytes"}},
		{name: "shorter than its digest", url: f.bad.URL + "/short", why: []string{"/short", "digest mismatch over 3145728 bytes", f.images.checksum}},
		{name: "another digest", url: f.images.url("another"), checksum: "sha256:" + strings.Repeat("0", 64),
			why: []string{"digest mismatch over 6291456 bytes", strings.Repeat("0", 64), strings.TrimPrefix(f.images.checksum, "sha256:")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := f.ready(t)
			args := map[string]any{"image": c.url, "checksum": f.images.checksum}
			if c.checksum != "" {
				args["checksum"] = c.checksum
			}
			f.fails(t, n, api.Event_EV_DEPLOY, args, api.State_ACTIVE, api.State_DEPLOY_FAILED, append(c.why, "deploy.write_image")...)
			if c.clean {
				untouched(t, n)
			}
			unbootable(t, n, 0)
			if got := n.machine.Stats().DiskBoots; got != 0 {
				t.Errorf("the machine came up from its disk %d times", got)
			}
			f.deploys(t, n, 0)
		})
	}
}

// testAbort: an abort in the middle of an image ends the deployment, the disk
// does not boot, and the node can be deployed.
func testAbort(t *testing.T, f *fixture) {
	n := f.ready(t)
	after := f.asks(t, n, api.Event_EV_DEPLOY, map[string]any{"image": f.bad.URL + "/held", "checksum": f.images.checksum})
	select {
	case <-f.bad.held:
	case <-within(t).Done():
		t.Fatal("the image was not asked for")
	}
	// What is not allowed meanwhile says so.
	_, err := f.client.Provision(within(t), provision(t, n, api.Event_EV_MANAGE, nil))
	refused(t, err, client.WrongState, "manage is not possible", "abort")
	f.asks(t, n, api.Event_EV_ABORT, nil)
	f.rests(t, n, after, api.State_ACTIVE, api.State_DEPLOY_FAILED, "aborted on request")
	// The agent was told before the flow ended; by itself it would give the
	// connection up after its stall limit, and ask again.
	select {
	case <-f.bad.gone:
	case <-time.After(20 * time.Second):
		t.Error("the agent goes on with an image that was aborted")
	}
	unbootable(t, n, 0)
	f.deploys(t, n, 0)
	// With nothing under way there is nothing to abort.
	_, err = f.client.Provision(within(t), provision(t, n, api.Event_EV_ABORT, nil))
	refused(t, err, client.WrongState, "abort is not possible", "undeploy")
}
