package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// web is the origins of images without a network.
type web func(r *http.Request) (*http.Response, error)

func (f web) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func serving(data []byte) web {
	return func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		http.ServeContent(rec, r, "image", time.Unix(1, 0), bytes.NewReader(data))
		return rec.Result(), nil
	}
}

// bubble is a world with a clock of its own. The peers are in the order in
// which they download the image of a checksum.
func bubble(t *testing.T, sum string, tune func(place int, cfg *Config), test func(w *world, order []string)) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t)
		w.pipes = true
		ids := []string{"a", "b", "c"}
		for _, id := range ids {
			w.join(id)
		}
		order := (&Keeper{cfg: Config{Store: w.store}}).order(w.store.View(), sum)
		for i, id := range order {
			w.start(id, t.TempDir(), func(c *Config) {
				c.Period, c.Poll = time.Minute, time.Second
				tune(i, c)
			})
		}
		test(w, order)
		w.stopAll()
	})
}

// slow is a stream whose messages take long to arrive.
type slow struct{ grpc.ClientStream }

func (s slow) RecvMsg(m any) error {
	time.Sleep(15 * time.Second) // of the bubble
	return s.ClientStream.RecvMsg(m)
}

// The second copy takes longer than a step may go without progress. It is told
// as progress all the time, whether or not the peer could follow the download.
func TestSecondCopyIsProgress(t *testing.T) {
	data := random(40, 20<<20)
	for _, algo := range []string{"sha256", "sha512"} {
		t.Run(algo, func(t *testing.T) {
			sum := checksumOf(algo, data)
			var w *world
			var mu sync.Mutex
			var opened []*grpc.ClientConn // guarded by mu
			slowly := func(id string) (*grpc.ClientConn, error) {
				p := w.peer(id)
				c, err := grpc.NewClient(p.addr, append([]grpc.DialOption{grpc.WithChainStreamInterceptor(
					func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
						s, err := next(ctx, d, cc, method, opts...)
						return slow{s}, err
					})}, p.dial...)...)
				mu.Lock()
				defer mu.Unlock()
				opened = append(opened, c)
				return c, err
			}
			bubble(t, sum, func(_ int, c *Config) {
				c.Origin = serving(data)
				own := c.Self
				c.PeerConn = func(id string) (*grpc.ClientConn, error) {
					if w.fetches(own) {
						return slowly(id)
					}
					return w.conn(id)
				}
			}, func(in *world, order []string) {
				w = in
				begin := time.Now()
				last, most, copying := begin, time.Duration(0), 0
				a, err := w.peer(order[2]).Image(w.t.Context(), []string{"http://origin/i"}, sum, "", func(done, total uint64, what string) {
					now := time.Now()
					most, last = max(most, now.Sub(last)), now
					if strings.Contains(what, "second copy") {
						copying++
					}
					if total > 0 && done > total {
						t.Errorf("%s: %d of %d bytes", what, done, total)
					}
				})
				took := time.Since(begin)
				if err != nil || len(a.GetCopies()) < 2 {
					t.Fatalf("%v, %v", a, err)
				}
				if took < 10*time.Minute || copying < 20 || max(most, time.Since(last)) > time.Minute {
					t.Errorf("it took %v; %d times the copy had grown; up to %v without a word", took, copying, max(most, time.Since(last)))
				}
				mu.Lock()
				defer mu.Unlock()
				for _, c := range opened {
					c.Close()
				}
			})
		})
	}
}

// fetches reports whether a peer is getting a file from another one.
func (w *world) fetches(id string) bool {
	p := w.peer(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fl := range p.flights {
		if !fl.last && fl.origin == nil {
			return true
		}
	}
	return false
}

// A peer that lives but cannot get the image lets the next one try; what the
// origin refuses is the end for all.
func TestNextPeerTriesTheOrigin(t *testing.T) {
	data := random(41, 1<<20)
	cut := web(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
	broken := web(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 502, Status: "502 Bad Gateway", Body: http.NoBody, Request: r}, nil
	})
	refused := web(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 403, Status: "403 Forbidden", Body: http.NoBody, Request: r}, nil
	})
	full := web(nil)
	for name, x := range map[string]struct {
		origins [3]web
		within  time.Duration
		kind    errs.Kind // errs.Internal: it comes
		asked   [3]bool
	}{
		"the first reaches it":       {[3]web{serving(data), cut, cut}, 10 * time.Second, errs.Internal, [3]bool{true, false, false}},
		"the second reaches it":      {[3]web{cut, serving(data), serving(data)}, 3 * time.Minute, errs.Internal, [3]bool{true, true, false}},
		"a proxy of the first fails": {[3]web{broken, serving(data), serving(data)}, 3 * time.Minute, errs.Internal, [3]bool{true, true, false}},
		"only the last reaches it":   {[3]web{cut, cut, serving(data)}, 5 * time.Minute, errs.Internal, [3]bool{true, true, true}},
		"the first has no room":      {[3]web{full, serving(data), serving(data)}, 10 * time.Second, errs.Internal, [3]bool{false, true, false}},
		"the first is refused":       {[3]web{refused, serving(data), serving(data)}, 10 * time.Second, errs.Denied, [3]bool{true, false, false}},
		"none reaches it":            {[3]web{cut, cut, cut}, 31 * time.Minute, errs.Unreachable, [3]bool{true, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			var asked [3]atomic.Int64
			sum := "sha256:" + sum256(data)
			bubble(t, sum, func(i int, c *Config) {
				origin := x.origins[i]
				c.Origin = web(func(r *http.Request) (*http.Response, error) {
					asked[i].Add(1)
					if origin == nil {
						return serving(data)(r)
					}
					return origin(r)
				})
				if origin == nil {
					c.Usage = func(string) (uint64, uint64, error) { return 1 << 40, 1 << 40, nil }
				}
			}, func(w *world, order []string) {
				ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Minute)
				defer cancel()
				begin := time.Now()
				var all sync.WaitGroup
				for _, id := range order { // all have machines that want it
					all.Go(func() {
						a, err := w.peer(id).Image(ctx, []string{"http://origin/i?sig=hush"}, sum, "", func(uint64, uint64, string) {})
						switch {
						case x.kind == errs.Internal && (err != nil || len(a.GetCopies()) < 2):
							t.Errorf("%s: %v, %v", id, a, err)
						case x.kind != errs.Internal && (!errors.Is(err, x.kind) || strings.Contains(err.Error(), "hush")):
							t.Errorf("%s: %v", id, err)
						}
					})
				}
				all.Wait()
				if took := time.Since(begin); took > x.within {
					t.Errorf("it took %v", took)
				}
				for i := range asked {
					if got := asked[i].Load() > 0; got != x.asked[i] {
						t.Errorf("the peer at place %d asked the origin %d times", i, asked[i].Load())
					}
				}
			})
		})
	}
}

// Only what comes further is progress: tries that begin and fail at the same
// place are none, whoever makes them.
func TestMoved(t *testing.T) {
	type look struct {
		peer string
		rep  *api.CacheImageReply
		want string
	}
	s := newSight()
	for i, l := range []look{
		{"a", &api.CacheImageReply{CheckedBytes: 10}, "10 a checks"},
		{"a", &api.CacheImageReply{CheckedBytes: 20}, "20 a checks"},
		{"a", &api.CacheImageReply{CheckedBytes: 20, DoneBytes: 20, TotalBytes: 50}, "20 a downloads"},
		{"b", &api.CacheImageReply{DoneBytes: 5}, "5 b downloads"},
		{"a", &api.CacheImageReply{CheckedBytes: 10}, ""},
		{"a", &api.CacheImageReply{CheckedBytes: 20, DoneBytes: 20}, ""},
		{"b", &api.CacheImageReply{DoneBytes: 5}, ""},
		{"a", &api.CacheImageReply{DoneBytes: 3}, ""}, // anew
		{"a", &api.CacheImageReply{DoneBytes: 4}, "4 a downloads"},
		{"a", &api.CacheImageReply{DoneBytes: 4, Copier: "c", CopyCheckedBytes: 2}, "2 c checks"},
		{"a", &api.CacheImageReply{DoneBytes: 4, Copier: "c", CopiedBytes: 3, CopyCheckedBytes: 2}, "3 c takes"},
		{"a", &api.CacheImageReply{DoneBytes: 4, Copier: "c", CopiedBytes: 3, CopyCheckedBytes: 2}, ""},
	} {
		got := ""
		if done, _, what := s.moved(l.peer, l.rep); what != "" {
			words := strings.Fields(what) // "peer a downloads the image"
			got = fmt.Sprintf("%d %s %s", done, words[1], words[2])
		}
		if got != l.want {
			t.Errorf("look %d: %q, want %q", i, got, l.want)
		}
	}
}
