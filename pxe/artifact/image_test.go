package artifact

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// origin serves an image and counts what it sent.
type origin struct {
	data []byte
	sent atomic.Int64
	cut  atomic.Int64 // the next answers break off after so many bytes, 0: not
}

func (o *origin) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	http.ServeContent(&counted{rw, o}, r, "image", time.Unix(1, 0), bytes.NewReader(o.data))
}

type counted struct {
	http.ResponseWriter
	o *origin
}

func (c *counted) Write(p []byte) (int, error) {
	if cut := c.o.cut.Load(); cut > 0 && c.o.sent.Load()+int64(len(p)) > cut {
		c.o.cut.Store(0)
		panic(http.ErrAbortHandler)
	}
	c.o.sent.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func TestImageIsDownloadedOnce(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	o := &origin{data: random(14, 3<<20)}
	o.cut.Store(1 << 20) // and over a break of the connection
	srv := httptest.NewServer(o)
	defer srv.Close()
	sum := "sha256:" + sum256(o.data)
	var all sync.WaitGroup
	for _, id := range []string{"a", "b", "c", "a", "b", "c"} {
		all.Go(func() {
			a, err := w.peer(id).Image(t.Context(), []string{srv.URL + "/i?secret=1"}, sum, "image.raw", func(uint64, uint64, string) {})
			if err != nil || len(a.GetCopies()) < 2 || a.GetKind() != api.Artifact_IMAGE {
				t.Errorf("%s: %v, %v", id, a, err)
			}
		})
	}
	all.Wait()
	// What was in the pipe of the broken connection comes again.
	if n := o.sent.Load(); n > int64(len(o.data))+1<<20 {
		t.Errorf("the origin sent %d bytes of an image of %d", n, len(o.data))
	}
	w.wantRead("a", o.data)
	if urls := w.peer("a").URLs(sum256(o.data), "node"); len(urls) != 3 {
		t.Errorf("URLs %q", urls)
	}
}

// What an origin refuses is final: it is said at once, and asked once.
func TestImageErrors(t *testing.T) {
	w := newWorld(t, "a", "b")
	srv := httptest.NewServer(&origin{data: random(15, 1000)})
	defer srv.Close()
	var asked atomic.Int64
	refuses := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		code, _ := strconv.Atoi(r.URL.Path[1:])
		rw.WriteHeader(code)
	}))
	defer refuses.Close()
	for name, x := range map[string]struct {
		url, sum string
		kind     errs.Kind
		text     string
		asked    int64
	}{
		"other bytes":           {srv.URL, "sha256:" + sum256([]byte("x")), errs.Invalid, "checksum", 0},
		"other bytes of sha512": {srv.URL, "sha512:" + sum256([]byte("x")) + sum256([]byte("x")), errs.Invalid, "checksum sha512:", 0},
		"401":                   {refuses.URL + "/401?token=hush", "sha256:" + sum256([]byte("401")), errs.Denied, "401", 1},
		"403":                   {refuses.URL + "/403?token=hush", "sha256:" + sum256([]byte("403")), errs.Denied, "403", 1},
		"404":                   {refuses.URL + "/404?token=hush", "sha256:" + sum256([]byte("404")), errs.NotFound, "404", 1},
		"410":                   {refuses.URL + "/410?token=hush", "sha256:" + sum256([]byte("410")), errs.NotFound, "410", 1},
		"no checksum":           {srv.URL, "md5:1234", errs.Invalid, "checksum", 0},
	} {
		asked.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := w.peer("a").Image(ctx, []string{x.url}, x.sum, "", func(uint64, uint64, string) {})
		cancel()
		if !errors.Is(err, x.kind) || !strings.Contains(err.Error(), x.text) || strings.Contains(err.Error(), "hush") || asked.Load() != x.asked {
			t.Errorf("%s: %v, asked %d times", name, err, asked.Load())
		}
		if x.asked > 0 && !strings.Contains(err.Error(), refuses.URL) {
			t.Errorf("%s does not say where: %v", name, err)
		}
	}
}

// The record names copies, and all of them are on peers that are away: the
// image comes from its origin again.
func TestImageWhoseCopiesAreAway(t *testing.T) {
	for _, algo := range []string{"sha256", "sha512"} {
		t.Run(algo, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c", "d")
			o := &origin{data: random(16, 1<<20)}
			srv := httptest.NewServer(o)
			defer srv.Close()
			sum := checksumOf(algo, o.data)
			get := func(id string) *api.Artifact {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				a, err := w.peer(id).Image(ctx, []string{srv.URL}, sum, "image.raw", func(uint64, uint64, string) {})
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			had := get("a").GetCopies()
			for _, id := range had {
				w.peer(id).stop()
				w.lose(id)
			}
			left := slices.DeleteFunc([]string{"a", "b", "c", "d"}, func(id string) bool { return slices.Contains(had, id) })
			a := get(left[0])
			await(t, "both have it", func() bool { return len(w.store.View().Artifact(a.GetDigest()).GetCopies()) == 4 })
			w.wantRead(left[1], o.data)
			if n := o.sent.Load(); n > 2*int64(len(o.data)) {
				t.Errorf("the origin sent %d bytes", n)
			}
		})
	}
}

func checksumOf(algo string, data []byte) string {
	c := checksum{algo: algo}
	h := c.hash()
	h.Write(data)
	c.hex = hex.EncodeToString(h.Sum(nil))
	return c.String()
}

// gate is an origin that stops in the middle until it is opened, and notes
// from where it is asked.
type gate struct {
	data []byte
	stop int64
	open chan struct{}

	mu     sync.Mutex
	ranges []string
}

func (g *gate) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.ranges = append(g.ranges, r.Header.Get("Range"))
	g.mu.Unlock()
	http.ServeContent(rw, r, "image", time.Unix(1, 0), &gated{bytes.NewReader(g.data), g, r.Context()})
}

type gated struct {
	*bytes.Reader
	g   *gate
	ctx context.Context
}

func (r *gated) Read(p []byte) (int, error) {
	at := r.Size() - int64(r.Len())
	select {
	case <-r.g.open:
	default:
		if at >= r.g.stop {
			select {
			case <-r.g.open:
			case <-r.ctx.Done():
				return 0, r.ctx.Err()
			}
		} else {
			p = p[:min(int64(len(p)), r.g.stop-at)]
		}
	}
	return r.Reader.Read(p)
}

func (g *gate) asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.ranges)
}

// The peer that downloads an image dies: the next one has what came so far,
// and goes on at the origin from there.
func TestNextPeerGoesOnWithTheImage(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	g := &gate{data: random(17, 3<<20), stop: 2 << 20, open: make(chan struct{})}
	srv := httptest.NewServer(g)
	defer srv.Close()
	sum := "sha256:" + sum256(g.data)
	order := w.peer("a").order(w.store.View(), sum)
	done := make(chan error, 1)
	go func() {
		_, err := w.peer(order[2]).Image(t.Context(), []string{srv.URL}, sum, "", func(uint64, uint64, string) {})
		done <- err
	}()
	part := func(id string) int64 {
		st, err := os.Stat(w.peer(id).store.partial(sum256(g.data)))
		if err != nil {
			return 0
		}
		return st.Size()
	}
	await(t, "the next peer follows", func() bool { return part(order[1]) == 2<<20 })
	w.peer(order[0]).stop()
	w.lose(order[0])
	await(t, "the next peer asks the origin", func() bool { return len(g.asked()) == 2 })
	close(g.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if asked := g.asked(); !slices.Equal(asked, []string{"", "bytes=2097152-"}) {
		t.Errorf("the origin was asked for %q", asked)
	}
	w.wantRead(order[1], g.data)
}

// The peer that downloads an image restarts, and goes on from where it was;
// if what it has is of no use the image comes anew.
func TestImageGoesOnAfterARestart(t *testing.T) {
	for _, algo := range []string{"sha256", "sha512"} {
		t.Run(algo, func(t *testing.T) {
			w := newWorld(t, "a")
			o := &gate{data: random(18, 1<<20), open: make(chan struct{})}
			close(o.open)
			srv := httptest.NewServer(o)
			defer srv.Close()
			for what, part := range map[string]struct {
				there []byte
				asked []string
			}{
				"half":  {o.data[:1<<19], []string{"bytes=524288-"}},
				"all":   {o.data, nil},
				"wrong": {random(19, 1000), []string{"bytes=1000-", ""}},
			} {
				o.ranges = nil
				c, err := parseChecksum(checksumOf(algo, o.data))
				if err != nil {
					t.Fatal(err)
				}
				p := w.start("a", t.TempDir(), nil)
				if err := os.WriteFile(p.store.partial(c.hex), part.there, 0o600); err != nil {
					t.Fatal(err)
				}
				var a *api.Artifact
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				for range 2 {
					im, req := &image{}, &api.CacheImageRequest{Urls: []string{srv.URL}, Checksum: c.String()}
					if err = p.obtain(ctx, im, c, req); !errors.Is(err, errs.Conflict) {
						break
					}
				}
				cancel()
				if a = w.store.View().ArtifactByChecksum(c.String()); err != nil || a.GetDigest() != sum256(o.data) {
					t.Errorf("%s: %v, %v", what, a, err)
				}
				if asked := o.asked(); !slices.Equal(asked, part.asked) {
					t.Errorf("%s: asked for %q", what, asked)
				}
				w.wantRead("a", o.data)
				p.stop()
				w.ok(&api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: sum256(o.data)}}})
			}
		})
	}
}

// A peer whose disk is at the bound passes an artifact on without keeping it,
// in ranges too, and over the death of the peer that it comes from.
func TestFullPeerPassesOn(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(20, 40<<20) // more than the buffers of a connection hold
	a := w.mustPut("a", data)
	w.join("full")
	full := w.start("full", t.TempDir(), func(c *Config) {
		c.Usage = func(string) (uint64, uint64, error) { return 1 << 40, 1 << 40, nil }
	})
	r, err := full.Open(t.Context(), a.GetDigest())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.Seek(0, io.SeekEnd); n != int64(len(data)) || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	for _, at := range []int64{39 << 20, 1000, 5} {
		p := make([]byte, 100)
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, p); err != nil || !bytes.Equal(p, data[at:at+100]) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	w.peer("a").stop()
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, data[105:]) {
		t.Errorf("%d bytes of %d after a death: %v", len(rest), len(data)-105, err)
	}
	w.peer("b").stop()
	if _, err := full.Open(t.Context(), a.GetDigest()); err == nil {
		t.Error("opened what nobody can give")
	}
	if names, partial, err := full.store.Digests(); err != nil || len(names)+len(partial) > 0 {
		t.Errorf("kept %q, %q, %v", names, partial, err)
	}
}
