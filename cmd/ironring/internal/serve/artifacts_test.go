package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
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
