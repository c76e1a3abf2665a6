package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/fetch"
)

// An artifact that is put at one peer is on two before the answer comes, and
// any peer serves it to machines, also one that has to fetch it first. The
// transport between the peers is the real one.
func TestArtifacts(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the peers have stopped
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := testConfig(t, 11)
	c, _ := start(t, Options{Config: first, Init: true})
	eventually(t, "first peer", live(c, 1))
	kernel := bytes.Repeat([]byte("kernel"), 300_000)
	put := func(c *client.Client, b []byte, kind api.Artifact_Kind, name string) *api.Artifact {
		t.Helper()
		rep, err := c.PutArtifact(ctx, &api.PutArtifactHead{Digest: digestOf(b), Size: uint64(len(b)), Kind: kind, Name: name}, bytes.NewReader(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		return rep.GetArtifact()
	}
	// One peer alone: one copy, and the record says so.
	if a := put(c, kernel, api.Artifact_KERNEL, "vmlinuz"); !slices.Equal(a.GetCopies(), []string{"p11"}) {
		t.Errorf("copies %v", a.GetCopies())
	}
	for _, n := range []int{12, 13} {
		token, err := c.CreateJoinToken(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t, n)
		if _, err := Join(ctx, Options{Config: cfg, JoinToken: token.GetToken(), Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		start(t, Options{Config: cfg})
		eventually(t, "joined", live(c, n-10))
	}
	initramfs := bytes.Repeat([]byte("initramfs"), 100_000)
	a := put(c, initramfs, api.Artifact_INITRAMFS, "initramfs.img")
	if len(a.GetCopies()) != 2 {
		t.Errorf("copies %v", a.GetCopies())
	}
	again := put(c, initramfs, api.Artifact_INITRAMFS, "initramfs.img")
	if !slices.Equal(again.GetCopies(), a.GetCopies()) {
		t.Errorf("put twice: %v", again)
	}
	for _, n := range []int{11, 12, 13} { // one of them has to fetch it
		if got, err := get(testAddress(n), digestOf(initramfs)); err != nil || !bytes.Equal(got, initramfs) {
			t.Errorf("p%d gave %d bytes, %v", n, len(got), err)
		}
	}
	if _, err := c.SetRamdisk(ctx, &api.SetRamdiskRequest{Ramdisk: &api.Ramdisk{Arch: "x86_64", Kernel: "vmlinuz", Initramfs: a.GetDigest()[:10]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteArtifact(ctx, &api.DeleteArtifactRequest{Artifact: "vmlinuz"}); !errors.Is(err, errs.WrongState) {
		t.Errorf("deleted though in use: %v", err)
	}
	show, err := c.GetArtifact(ctx, &api.GetArtifactRequest{Artifact: "vmlinuz"})
	if err != nil || len(show.GetReferencedBy()) != 1 {
		t.Errorf("%v, %v", show, err)
	}
	if _, err := c.DeleteRamdisk(ctx, &api.DeleteRamdiskRequest{Arch: "x86_64"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteArtifact(ctx, &api.DeleteArtifactRequest{Artifact: "initramfs.img"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetArtifact(ctx, &api.GetArtifactRequest{Artifact: "initramfs.img"}); !errors.Is(err, errs.NotFound) {
		t.Errorf("after rm: %v", err)
	}
	_, err = c.PutArtifact(ctx, &api.PutArtifactHead{Digest: digestOf([]byte("x")), Size: 1}, bytes.NewReader([]byte("y")), nil)
	if !errors.Is(err, errs.Invalid) {
		t.Errorf("other bytes than announced: %v", err)
	}
}

func digestOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func get(host, digest string) ([]byte, error) {
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get("http://" + host + ":7484/artifact/sha256/" + digest)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, err
}

// live is good when so many peers are ready and have a lease.
func live(c *client.Client, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := members(c, n)(ctx); err != nil {
			return err
		}
		rep, err := c.ClusterStatus(ctx, nil)
		if err != nil {
			return err
		}
		for _, p := range rep.GetPeers() {
			if p.GetLease() != "live" {
				return fmt.Errorf("%s has no lease", p.GetMember().GetId())
			}
		}
		return nil
	}
}

// A cached image is downloaded once, and a machine that reads it when the
// serving peer goes away goes on at another one: the origin sends nothing more.
func TestLocalImageOutlivesItsServer(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	image := make([]byte, 48<<20)
	rand.New(rand.NewSource(3)).Read(image)
	var sent atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := w.Write(image) // what a client did not take it asks for again
		sent.Add(int64(n))
	}))
	t.Cleanup(origin.Close)
	peers, stops := map[string]*Peer{}, map[string]func(){}
	first := testConfig(t, 21)
	p, c, stop := launch(t, Options{Config: first, Init: true})
	peers["p21"], stops[testAddress(21)] = p, stop
	eventually(t, "first peer", live(c, 1))
	for n := 22; n <= 23; n++ {
		token, err := c.CreateJoinToken(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t, n)
		if _, err := Join(ctx, Options{Config: cfg, JoinToken: token.GetToken(), Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		p, _, stop := launch(t, Options{Config: cfg})
		peers[fmt.Sprint("p", n)], stops[testAddress(n)] = p, stop
		eventually(t, "joined", live(c, n-20))
	}
	var all sync.WaitGroup
	for _, p := range peers {
		all.Go(func() {
			if _, err := p.artifacts.Image(ctx, []string{origin.URL}, "sha256:"+digestOf(image), "image", func(_, _ uint64, _ string) {}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	urls := peers["p21"].artifacts.URLs(digestOf(image), "n1")
	if len(urls) != 3 {
		t.Fatalf("URLs %q", urls)
	}
	s, err := fetch.Open(ctx, fetch.Config{URLs: urls})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := make([]byte, len(image))
	if _, err := io.ReadFull(s, got[:1<<20]); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.Source())
	if err != nil {
		t.Fatal(err)
	}
	stops[u.Hostname()]()
	if _, err := io.ReadFull(s, got[1<<20:]); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) || s.Requests() < 2 {
		t.Errorf("other bytes, or %d requests", s.Requests())
	}
	if n := sent.Load(); n != int64(len(image)) {
		t.Errorf("the origin sent %d bytes of an image of %d", n, len(image))
	}
}

// launch is start for tests that look inside.
func launch(t *testing.T, opts Options) (*Peer, *client.Client, func()) {
	t.Helper()
	opts.Logger = quiet
	ctx, cancel := context.WithCancel(context.Background())
	p, err := Open(ctx, opts)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	c, err := client.New(client.Config{Socket: opts.Config.Socket})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("peer %s ended with %v", opts.Config.ID, err)
		}
	})
	t.Cleanup(stop)
	return p, c, stop
}
