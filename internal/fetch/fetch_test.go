package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var content = func() []byte {
	b := make([]byte, 3<<20+17)
	rand.New(rand.NewSource(1)).Read(b)
	return b
}()

// cutter serves content and breaks each connection after some bytes.
type cutter struct {
	after  func(req int) int64 // bytes of the body before the cut, -1: no cut
	header func(req int, h http.Header)
	ranges bool
	n      atomic.Int64
}

type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left >= 0 && int64(len(p)) > w.left {
		w.ResponseWriter.Write(p[:w.left])
		w.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	if w.left >= 0 {
		w.left -= int64(len(p))
	}
	return w.ResponseWriter.Write(p)
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(c.n.Add(1))
	if c.header != nil {
		c.header(n, w.Header())
	}
	if !c.ranges {
		r.Header.Del("Range")
	}
	left := int64(-1)
	if c.after != nil {
		left = c.after(n)
	}
	http.ServeContent(&cutWriter{w, left}, r, "x.img", time.Time{}, bytes.NewReader(content))
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL + "/x.img"
}

// fast pauses little. Its limits are those of a busy machine; what meets them
// is tested in a bubble.
func fast(urls ...string) Config {
	return Config{URLs: urls, PauseMin: time.Millisecond, PauseMax: 5 * time.Millisecond, Stall: time.Minute, NoProgress: time.Minute}
}

// bubble gives a test a clock of its own, and servers that are reached in
// memory. Where none listens connections are refused.
func bubble(t *testing.T, test func(t *testing.T, listen func(h http.Handler) (url string), cfg func(urls ...string) Config)) {
	synctest.Test(t, func(t *testing.T) {
		listeners := map[string]pipes{}
		tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			l, ok := listeners[addr]
			if !ok {
				return nil, fmt.Errorf("dial %s: connection refused", addr)
			}
			near, far := net.Pipe()
			select {
			case l <- far:
				return near, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		var all []*http.Server
		var served sync.WaitGroup
		test(t, func(h http.Handler) string {
			l := make(pipes)
			host := fmt.Sprintf("s%d.example:80", len(listeners))
			listeners[host] = l
			s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
			all = append(all, s)
			served.Go(func() { _ = s.Serve(l) })
			return "http://" + host + "/x.img"
		}, func(urls ...string) Config {
			return Config{URLs: urls, Transport: tr}
		})
		tr.CloseIdleConnections()
		for _, s := range all {
			s.Close()
		}
		served.Wait()
	})
}

// pipes is a net.Listener.
type pipes chan net.Conn

func (l pipes) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l pipes) Close() error   { close(l); return nil }
func (l pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func readAll(t *testing.T, cfg Config) ([]byte, int, error) {
	t.Helper()
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return nil, 0, err
	}
	defer s.Close()
	b, err := io.ReadAll(s)
	return b, s.Requests(), err
}

func TestPlain(t *testing.T) {
	u := serve(t, &cutter{ranges: true})
	s, err := Open(context.Background(), fast(u))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Size() != int64(len(content)) {
		t.Errorf("size %d", s.Size())
	}
	b, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(b, content) || s.Requests() != 1 {
		t.Errorf("%d bytes, %d requests, %v", len(b), s.Requests(), err)
	}
}

func TestCutAtRandomOffsets(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		for _, etag := range []bool{true, false} {
			t.Run(fmt.Sprintf("ranges=%v,etag=%v", ranges, etag), func(t *testing.T) {
				rnd := rand.New(rand.NewSource(7))
				c := &cutter{ranges: ranges}
				c.after = func(n int) int64 {
					if ranges {
						return rnd.Int63n(400_000)
					}
					return int64(n) * 300_000 // without ranges each try must get further
				}
				if etag {
					c.header = func(_ int, h http.Header) { h.Set("ETag", `"v1"`) }
				}
				b, n, err := readAll(t, fast(serve(t, c)))
				if err != nil || !bytes.Equal(b, content) {
					t.Fatalf("%d bytes after %d requests: %v", len(b), n, err)
				}
				if n < 5 {
					t.Errorf("only %d requests", n)
				}
			})
		}
	}
}

func TestTwoServers(t *testing.T) {
	bad := serve(t, http.NotFoundHandler())
	flaky := serve(t, &cutter{ranges: true, after: func(n int) int64 { return 1 << 20 }})
	b, n, err := readAll(t, fast(bad, flaky))
	if err != nil || !bytes.Equal(b, content) || n != 5 {
		t.Errorf("%d bytes, %d requests, %v", len(b), n, err)
	}
}

// raw answers with a head as it is.
func raw(head string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(c, head+"\r\n\r\n") // the client may have hung up
			c.Close()
		}
	})
}

func redirect(to string) http.Handler { return raw("HTTP/1.1 302 Found\r\nLocation: " + to) }

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 2000)
	changed := func(set func(n int, h http.Header)) http.Handler {
		return &cutter{ranges: true, header: set, after: func(n int) int64 {
			if n == 1 {
				return 1 << 20
			}
			return -1
		}}
	}
	shrunk := func() http.HandlerFunc {
		var n atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) {
			c, left := content, int64(1<<20)
			if n.Add(1) > 1 {
				c, left = content[:1000], -1
			}
			http.ServeContent(&cutWriter{w, left}, r, "x", time.Time{}, bytes.NewReader(c))
		}
	}()
	for name, c := range map[string]struct {
		h    http.Handler
		kind errs.Kind
		text string
		reqs int64
	}{
		"404":       {http.NotFoundHandler(), errs.NotFound, "404", 1},
		"403":       {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }), errs.Denied, "403", 1},
		"400":       {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }), errs.Invalid, "400", 1},
		"etag":      {changed(func(n int, h http.Header) { h.Set("ETag", fmt.Sprintf(`"v%d"`, n)) }), errs.Conflict, "changed", 2},
		"modified":  {changed(func(n int, h http.Header) { h.Set("Last-Modified", fmt.Sprintf("Mon, 02 Jan 2006 15:04:0%d GMT", n)) }), errs.Conflict, "changed", 2},
		"shrunk":    {shrunk, errs.Conflict, "changed", 2},
		"truncated": {&cutter{ranges: true, after: func(n int) int64 { return int64(max(0, 2-n)) << 20 }}, errs.Timeout, "no progress", 0},
		"broken":    {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), errs.Timeout, "503", 0},
		"gzip coding": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write([]byte("x"))
		}), errs.Invalid, "codes the file", 1},
		"redirect to no URL":      {redirect("http://%zz/?sig=secret"), errs.Invalid, "no URL", 0},
		"relative, no URL":        {redirect("/%zz?sig=secret"), errs.Invalid, "no URL", 0},
		"redirect to a bad port":  {redirect("http://h:secret/"), errs.Invalid, "no URL", 0},
		"redirect to a long name": {redirect("http://" + long + "/?sig=secret"), errs.Unreachable, "dial xxx", 0},
		"long status":             {raw("HTTP/1.1 418 \x1b[2J" + long), errs.Invalid, "418 ", 1},
		"long status, again":      {raw("HTTP/1.1 503 \x1b[2J" + long), errs.Timeout, "503 ", 0},
		"no HTTP":                 {raw(long + "\x1b[2J"), errs.Unreachable, "malformed", 0},
		"no header":               {raw("HTTP/1.1 200 OK\r\n\x1b[2J" + long), errs.Unreachable, "malformed", 0},
		"long ETags":              {changed(func(n int, h http.Header) { h.Set("ETag", fmt.Sprintf(`"%d%s"`, n, long)) }), errs.Conflict, "changed", 2},
		"long coding":             {raw("HTTP/1.1 200 OK\r\nContent-Encoding: " + long), errs.Invalid, "codes the file", 1},
		"long range":              {raw("HTTP/1.1 416 No\r\nContent-Range: bytes */" + long), errs.Conflict, "changed", 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, listen func(http.Handler) string, cfg func(...string) Config) {
				var n atomic.Int64
				u := listen(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.Add(1); c.h.ServeHTTP(w, r) }))
				u = strings.Replace(u, "http://", "http://user:hunter2@", 1) + "?sig=secret"
				_, _, err := readAll(t, cfg(u))
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "x.img") {
					t.Errorf("%v (%v)", err, errs.KindOf(err))
				}
				if s := err.Error(); strings.Contains(s, "hunter2") || strings.Contains(s, "secret") || strings.Contains(s, "user") ||
					len(s) > 700 || strings.ContainsFunc(s, unicode.IsControl) {
					t.Errorf("secret, or not fit to be shown: %q", s)
				}
				if c.reqs > 0 && n.Load() != c.reqs {
					t.Errorf("%d requests", n.Load())
				}
			})
		})
	}
}

func TestUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T, _ func(http.Handler) string, cfg func(...string) Config) {
		begin := time.Now()
		_, _, err := readAll(t, cfg("http://joe:hunter2@nobody.example/x?k=secret"))
		if !errors.Is(err, errs.Unreachable) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
		if took := time.Since(begin); took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("given up after %v", took)
		}
	})
	for _, u := range []string{"", "ftp://x/y", "http://", "::"} {
		if _, _, err := readAll(t, fast(u)); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", u, err)
		}
	}
	if _, _, err := readAll(t, fast()); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

// A server that stops sending is left for another, and the file goes on there.
func TestStall(t *testing.T) {
	bubble(t, func(t *testing.T, listen func(http.Handler) string, cfg func(...string) Config) {
		u1 := listen(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		begin := time.Now()
		b, n, err := readAll(t, cfg(u1, listen(&cutter{ranges: true})))
		if err != nil || !bytes.Equal(b, content) || n != 2 {
			t.Errorf("%d bytes, %d requests, %v", len(b), n, err)
		}
		if took := time.Since(begin); took < 15*time.Second || took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCancel(t *testing.T) {
	started := make(chan struct{})
	u := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Open(ctx, fast(u))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() { <-started; cancel() }()
	if _, err := io.ReadAll(s); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNoLength(t *testing.T) {
	u := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(content[:100])
		w.(http.Flusher).Flush()
		w.Write(content[100:200])
	}))
	b, n, err := readAll(t, fast(u))
	if err != nil || !bytes.Equal(b, content[:200]) || n != 1 {
		t.Errorf("%d bytes, %d requests, %v", len(b), n, err)
	}
}

// Pieces are read while the file itself is under way, and broken connections
// are gone on with.
func TestReadAt(t *testing.T) {
	rnd := rand.New(rand.NewSource(5))
	u := serve(t, &cutter{ranges: true, after: func(n int) int64 {
		if n == 1 {
			return -1
		}
		return 1 + rnd.Int63n(30_000)
	}})
	s, err := Open(context.Background(), fast(u))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := make([]byte, 0, len(content))
	buf := make([]byte, 1<<20)
	for i := 0; len(got) < len(content); i++ {
		n, err := io.ReadFull(s, buf[:min(len(buf), len(content)-len(got))])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
		off := rnd.Int63n(int64(len(content)) - 60_000)
		p := make([]byte, 1+rnd.Intn(60_000))
		if _, err := s.ReadAt(p, off); err != nil || !bytes.Equal(p, content[off:off+int64(len(p))]) {
			t.Fatalf("%d bytes at %d: %v", len(p), off, err)
		}
	}
	if !bytes.Equal(got, content) {
		t.Error("the file was disturbed by the pieces")
	}
	if n, err := s.ReadAt(buf[:10], int64(len(content))-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d %v", n, err)
	}
	if n, err := s.ReadAt(buf[:10], int64(len(content))); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d %v", n, err)
	}
}

func TestReadAtWithoutRanges(t *testing.T) {
	s, err := Open(context.Background(), fast(serve(t, &cutter{})))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.ReadAt(make([]byte, 10), 5); !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "byte ranges") {
		t.Error(err)
	}
}

// Each attempt that fails is told at once, without secrets.
func TestTrouble(t *testing.T) {
	var told []string
	bubble(t, func(t *testing.T, listen func(http.Handler) string, config func(...string) Config) {
		cfg := config(strings.Replace(listen(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })), "//", "//u:hunter2@", 1) + "?k=secret")
		cfg.Trouble = func(err error) { told = append(told, err.Error()) }
		if _, _, err := readAll(t, cfg); !errors.Is(err, errs.Timeout) {
			t.Error(err)
		}
	})
	if len(told) < 2 || !strings.Contains(told[0], "503") || strings.Contains(told[0], "hunter2") || strings.Contains(told[0], "secret") {
		t.Errorf("%q", told)
	}
}

func TestContentRange(t *testing.T) {
	for v, want := range map[string][3]int64{
		"bytes 5-9/10": {5, 10, 1}, "bytes 5-9/*": {5, -1, 1}, "bytes 5-9/9": {0, 0, 0}, "bytes 9-5/10": {0, 0, 0},
		"": {0, 0, 0}, "bytes */10": {0, 0, 0}, "bytes -5-9/10": {0, 0, 0}, "lines 1-2/3": {0, 0, 0},
		"bytes +5-9/10": {0, 0, 0}, "bytes 5-9/+10": {0, 0, 0}, "bytes 5-9/99999999999999999999": {0, 0, 0}, "bytes 5 -9/10": {0, 0, 0},
	} {
		s, a, ok := parseContentRange(v)
		if ok != (want[2] == 1) || ok && (s != want[0] || a != want[1]) {
			t.Errorf("%q: %d %d %v", v, s, a, ok)
		}
	}
}

// What is taken for a range is one, and written the way it was read.
func FuzzContentRange(f *testing.F) {
	for _, v := range []string{"bytes 5-9/10", "bytes 0-0/*", "bytes */10", "bytes +5-9/10", "bytes 5-9223372036854775807/*"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		start, all, ok := parseContentRange(v)
		if !ok {
			return
		}
		if start < 0 || all >= 0 && start >= all {
			t.Errorf("%q: from %d of %d", v, start, all)
		}
		if s, a, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", start, start, max(all, start+1))); start < math.MaxInt64 && (!ok || s != start || a != max(all, start+1)) {
			t.Errorf("%q: %d of %d, %v", v, s, a, ok)
		}
	})
}

// A caller that has the beginning from before gets the rest only.
func TestOffset(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		cfg := fast(serve(t, &cutter{ranges: ranges}))
		cfg.Offset = 1<<20 + 3
		s, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(b, content[cfg.Offset:]) || s.Size() != int64(len(content)) {
			t.Errorf("ranges %v: %d bytes of %d, %v", ranges, len(b), s.Size(), err)
		}
		s.Close()
	}
	cfg := fast(serve(t, &cutter{ranges: true}))
	cfg.Offset = int64(len(content)) + 1
	if _, err := Open(context.Background(), cfg); !errors.Is(err, errs.Conflict) {
		t.Errorf("behind the end: %v", err)
	}
}
