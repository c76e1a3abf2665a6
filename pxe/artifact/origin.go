package artifact

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// checksum is a parsed "sha256:HEX" or "sha512:HEX".
type checksum struct {
	algo string
	hex  string
}

func parseChecksum(s string) (checksum, error) {
	algo, sum, _ := strings.Cut(s, ":")
	want := map[string]int{"sha256": sha256.Size, "sha512": sha512.Size}[algo]
	if b, err := hex.DecodeString(sum); want == 0 || err != nil || len(b) != want || strings.ToLower(sum) != sum {
		return checksum{}, errs.About(errs.Invalid, "checksum", "checksum %.160q is neither sha256: nor sha512: with lower-case hex digits", s)
	}
	return checksum{algo, sum}, nil
}

func (c checksum) hash() hash.Hash {
	if c.algo == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// source is where an image comes from, and how far it has come.
type source struct {
	urls []string
	sum  checksum

	mu          sync.Mutex
	done, total uint64 // guarded by mu
}

func (s *source) progress() (done, total uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done, s.total
}

func (s *source) at(done, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.total = uint64(max(done, 0)), uint64(max(total, 0))
}

// fromOrigin downloads an image once, over breaks of the connection, verifies
// it and gives its digest.
func (k *Keeper) fromOrigin(ctx context.Context, src *source) (string, error) {
	if len(src.urls) == 0 {
		return "", errs.About(errs.Invalid, "urls", "no URL given")
	}
	if src.sum.algo == "sha256" && k.Has(src.sum.hex) {
		k.want(src.sum.hex)
		return src.sum.hex, nil
	}
	in, err := k.store.receive(-1)
	if err != nil {
		return "", err
	}
	defer in.abort(errs.New(errs.Internal, "the download ended")) // nothing after commit
	d := &download{in: in, src: src, other: src.sum.hash(), client: originClient(), etags: map[string]string{}}
	defer d.client.CloseIdleConnections()
	if err := d.run(ctx); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(d.other.Sum(nil)); got != src.sum.hex {
		return "", errs.About(errs.Invalid, "checksum", "the image at %s has the checksum %s:%s, not %s", shown(src.urls[0]), src.sum.algo, got, src.sum.hex)
	}
	digest := in.digest()
	k.want(digest)
	return digest, in.commit(digest)
}

func originClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableCompression: true,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: fetchStall,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			req.Header.Del("Referer") // the query of the first URL may hold a secret
			if len(via) >= 10 {
				return errs.New(errs.Invalid, "more than 10 redirects")
			}
			return nil
		},
	}
}

// shown is a URL without user, password and query.
func shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(unreadable URL)"
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}

// download is one image on its way from its origin. It belongs to one
// goroutine.
type download struct {
	in     *incoming
	src    *source
	other  hash.Hash // of the checksum's algorithm
	client *http.Client
	total  int64             // 0: not known
	etags  map[string]string // strong ones, by URL
}

// run tries the URLs in turn until the image is whole, or one says that it
// cannot be had, or nothing came for too long.
func (d *download) run(ctx context.Context) error {
	last, pause := time.Now(), pauseMin
	for i := 0; ; i++ {
		raw := d.src.urls[i%len(d.src.urls)]
		before, _ := d.in.progress()
		err := d.attempt(ctx, raw)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", shown(raw), bare(err))
		if now, _ := d.in.progress(); now > before {
			last, pause = time.Now(), pauseMin
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errs.Invalid), errors.Is(err, errs.Busy):
			return err
		case errors.Is(err, errs.NotFound) && len(d.src.urls) == 1:
			return err
		case time.Since(last) > fetchLimit:
			return errs.New(errs.Unreachable, "the image did not come for %s: %w", fetchLimit, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

// bare takes the URL, which may hold secrets, out of errors of net/http.
func bare(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	return err
}

// attempt goes on with the image by one request.
func (d *download) attempt(ctx context.Context, raw string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return errs.New(errs.Invalid, "%w", err)
	}
	have, _ := d.in.progress()
	if have > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(have, 10)+"-")
		if etag := d.etags[raw]; etag != "" {
			req.Header.Set("If-Range", etag)
		}
	}
	res, err := d.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	skip, err := d.answer(res, raw, have)
	if err != nil {
		return err
	}
	stalled := time.AfterFunc(fetchStall, cancel)
	defer stalled.Stop()
	buf := make([]byte, chunk)
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			stalled.Reset(fetchStall)
			part := buf[:n]
			drop := min(int64(n), skip) // a server without ranges begins anew
			skip -= drop
			if err := d.take(part[drop:]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			if have, _ := d.in.progress(); d.total > 0 && have < d.total {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *download) take(p []byte) error {
	have, _ := d.in.progress()
	if have+int64(len(p)) > MaxSize || d.total > 0 && have+int64(len(p)) > d.total {
		return errs.New(errs.Invalid, "more bytes than the %d announced, or than an artifact may have", d.total)
	}
	if _, err := d.in.Write(p); err != nil {
		return err
	}
	d.other.Write(p)
	d.src.at(have+int64(len(p)), d.total)
	return nil
}

// answer reads a response's header: how many bytes of the body are here
// already.
func (d *download) answer(res *http.Response, raw string, have int64) (skip int64, err error) {
	total := res.ContentLength
	switch {
	case res.StatusCode == http.StatusPartialContent && have > 0:
		var from, to int64
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err != nil || from != have {
			return 0, errs.New(errs.Invalid, "answered with the range %.80q", res.Header.Get("Content-Range"))
		}
	case res.StatusCode == http.StatusOK:
		skip = have
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return 0, errs.New(errs.NotFound, "%s", res.Status)
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return 0, errs.New(errs.Denied, "%s", res.Status)
	default:
		return 0, errs.New(errs.Unreachable, "%s", res.Status)
	}
	if have == 0 {
		d.total = max(total, 0)
		if err := d.in.store.room(d.total); err != nil {
			return 0, err
		}
	}
	etag := res.Header.Get("ETag")
	if strings.HasPrefix(etag, "W/") {
		etag = ""
	}
	known := d.etags[raw]
	if total > 0 && d.total > 0 && total != d.total || known != "" && etag != known {
		return 0, errs.New(errs.Invalid, "the image changed while it was read")
	}
	d.etags[raw] = etag
	d.src.at(have, d.total)
	return skip, nil
}
