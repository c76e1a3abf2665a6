package artifact

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// sweeps has a peer look at its files now.
func (w *world) sweeps(p *peer) {
	w.t.Helper()
	if err := p.reconcile(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func TestUnrecordedFilesGo(t *testing.T) {
	w := newWorld(t, "a")
	p := w.peer("a")
	keep, drop := random(12, 1000), random(13, 1000)
	w.mustPut("a", keep)
	a := w.mustPut("a", drop)
	w.pass(2 * time.Hour)
	w.ok(&api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: a.GetDigest()}}})
	w.sweeps(p)
	w.pass(59 * time.Minute)
	w.sweeps(p)
	if !p.Has(a.GetDigest()) {
		t.Error("deleted at once: machines may be reading it")
	}
	w.pass(2 * time.Minute)
	await(t, "the file is gone", func() bool { return !p.Has(a.GetDigest()) })
	if !p.Has(sum256(keep)) {
		t.Error("a recorded file is gone")
	}
}

// Transfers of hours: neither side deletes the file before it is recorded.
func TestLongTransfersAreKept(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(30, 300_000)
	digest, a, b := sum256(data), w.peer("a"), w.peer("b")
	hours := func() {
		w.pass(3 * time.Hour)
		w.sweeps(a)
		w.sweeps(b)
	}
	next := feed(data)
	if err := a.Receive(digest, uint64(len(data)), func() ([]byte, error) {
		hours()
		return next()
	}); err != nil {
		t.Fatal(err)
	}
	w.sweeps(a)
	if !a.Has(digest) {
		t.Fatal("swept though it has only just come")
	}
	// The copy to b takes hours too: each message of it waits in the peer's
	// place for readers.
	release := a.pin(digest)
	hours()
	if !a.Has(digest) {
		t.Fatal("swept while it was read")
	}
	release()
	copies, until, err := a.Replicate(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(50 * time.Minute) // whoever commits may take its time
	w.sweeps(a)
	w.sweeps(b)
	if !a.Has(digest) || !b.Has(digest) {
		t.Error("swept before the record could be committed")
	}
	set := &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: &api.Artifact{Digest: digest, Size: uint64(len(data)), Copies: copies}, BeforeTick: until}}}
	w.pass(20 * time.Minute) // but not longer than the files are kept
	if _, err := w.propose(t.Context(), &api.Command{Meta: &api.Meta{Principal: "system", Reason: "test"}, Ops: []*api.Op{set}}); !errors.Is(err, errs.Conflict) {
		t.Errorf("a record of files that may be gone: %v", err)
	}
	w.pass(time.Hour) // they may have let go of it a moment after the answer
	await(t, "what was given up is gone", func() bool { return !a.Has(digest) && !b.Has(digest) })
}

// A file on its way from a slow peer is not swept, and counts as wanted when
// it lands.
func TestSlowReaderPinsTheFile(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(31, 24<<20) // more than the buffers of a connection hold
	a := w.peer("a")
	if err := a.Receive(sum256(data), uint64(len(data)), feed(data)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := api.NewArtifactsClient(a.client).Read(ctx, &api.ReadArtifactRequest{Digest: sum256(data)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	w.pass(5 * time.Hour)
	w.sweeps(a)
	if !a.Has(sum256(data)) {
		t.Fatal("swept while a peer reads it")
	}
	n := 0
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(chunk.GetData())
	}
	if n != len(data) {
		t.Errorf("%d bytes", n)
	}
	w.sweeps(a)
	if !a.Has(sum256(data)) {
		t.Error("swept when the reader was done, not an hour later")
	}
}

// A peer that was away sees hours of the cluster's clock in a moment: what it
// has promised may have been promised at the end of them.
func TestCatchingUpDeletesNothing(t *testing.T) {
	w := newWorld(t, "a")
	data := random(32, 1000)
	p := w.peer("a")
	if err := p.Receive(sum256(data), 1000, feed(data)); err != nil {
		t.Fatal(err)
	}
	w.sweeps(p)
	for range 20 * 60 { // more than three hours, as fast as it goes
		w.tick(10 * time.Second)
	}
	w.sweeps(p)
	w.pass(50 * time.Minute)
	w.sweeps(p)
	if !p.Has(sum256(data)) {
		t.Error("deleted by what had happened before")
	}
	w.pass(time.Hour)
	await(t, "it goes in the end", func() bool { return !p.Has(sum256(data)) })
}

// Parts of files that nobody goes on with go too, whether an artifact has a
// record or not.
func TestPartsGo(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(33, 1000)
	a := w.mustPut("a", data)
	dir := filepath.Join(w.peer("a").dir, dirPartial)
	long := a.GetDigest() + a.GetDigest()
	for _, name := range []string{a.GetDigest(), sum256([]byte("other")), long} {
		if err := os.WriteFile(filepath.Join(dir, name), data[:100], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	await(t, "the part of a file that is here is gone", func() bool { return left() == 2 })
	w.sweeps(w.peer("a"))
	w.pass(30 * time.Minute)
	w.sweeps(w.peer("a"))
	if n := left(); n != 2 {
		t.Errorf("%d parts after half an hour", n)
	}
	w.pass(time.Hour)
	await(t, "all parts are gone", func() bool { return left() == 0 })
	w.wantRead("a", data)
}
