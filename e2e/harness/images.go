package harness

import (
	"errors"
	"net/http"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ImageServer serves images over HTTP on the provisioning network, as slowly
// as it is told, and counts what it gives.
type ImageServer struct {
	lab  *Lab
	http *http.Server
	wg   sync.WaitGroup

	mu     sync.Mutex
	images map[string]*served // guarded by mu; by path
}

type served struct {
	image    *Image
	limit    *rate.Limiter // bytes a second; nil: no limit
	bytes    int64         // guarded by ImageServer.mu
	requests []string      // guarded by ImageServer.mu; method and range
}

const (
	imagePort = "8080"
	chunk     = 64 << 10
)

// ServeImages starts a server that knows no image yet.
func (l *Lab) ServeImages() (*ImageServer, error) {
	ln, err := l.Listen("www", ":"+imagePort)
	if err != nil {
		return nil, err
	}
	s := &ImageServer{lab: l, images: map[string]*served{}}
	s.http = &http.Server{Handler: http.HandlerFunc(s.get), ReadHeaderTimeout: 10 * time.Second}
	s.wg.Go(func() {
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.Logf("image server: %v", err)
		}
	})
	l.Defer(func() error {
		err := s.http.Close()
		s.wg.Wait()
		return err
	})
	return s, nil
}

// Add serves an image; with atLeast above zero a single reader needs at least
// that long for it. It returns the URL.
func (s *ImageServer) Add(img *Image, atLeast time.Duration) string {
	name := "/" + path.Base(img.File)
	v := &served{image: img}
	if atLeast > 0 {
		v.limit = rate.NewLimiter(rate.Limit(float64(img.Size)/atLeast.Seconds()), chunk)
	}
	s.mu.Lock()
	s.images[name] = v
	s.mu.Unlock()
	return "http://" + ImageHost + ":" + imagePort + name
}

// Bytes is how many bytes of an image's content were sent, over all requests.
func (s *ImageServer) Bytes(img *Image) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.images["/"+path.Base(img.File)]; v != nil {
		return v.bytes
	}
	return 0
}

// Requests are the requests for an image: method, range and who asked.
func (s *ImageServer) Requests(img *Image) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.images["/"+path.Base(img.File)]; v != nil {
		return slices.Clone(v.requests)
	}
	return nil
}

func (s *ImageServer) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	v := s.images[r.URL.Path]
	if v != nil {
		v.requests = append(v.requests, r.Method+" "+r.Header.Get("Range")+" from "+r.RemoteAddr)
	}
	s.mu.Unlock()
	s.lab.Logf("image server: %s %s %s from %s", r.Method, r.URL.Path, r.Header.Get("Range"), r.RemoteAddr)
	if v == nil {
		http.NotFound(w, r)
		return
	}
	f, err := os.Open(v.image.File)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	http.ServeContent(&counted{ResponseWriter: w, server: s, of: v, req: r}, r, "", st.ModTime(), f)
}

// counted passes the body on in chunks: each waits for its turn and is counted.
type counted struct {
	http.ResponseWriter
	server *ImageServer
	of     *served
	req    *http.Request
}

// Write implements io.Writer.
func (c *counted) Write(b []byte) (int, error) {
	var total int
	for part := range slices.Chunk(b, chunk) {
		if c.of.limit != nil {
			if err := c.of.limit.WaitN(c.req.Context(), len(part)); err != nil {
				return total, err
			}
		}
		n, err := c.ResponseWriter.Write(part)
		total += n
		c.server.mu.Lock()
		c.of.bytes += int64(n)
		c.server.mu.Unlock()
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
