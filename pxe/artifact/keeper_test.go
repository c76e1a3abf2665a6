package artifact

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func TestPutIsOnTwoPeersBeforeItIsUsed(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	data := random(1, 1_300_000)
	a := w.mustPut("a", data)
	if copies(a) != "[a b]" || !w.peer("a").Has(a.GetDigest()) || !w.peer("b").Has(a.GetDigest()) || w.peer("c").Has(a.GetDigest()) {
		t.Errorf("copies %s", copies(a))
	}
	// A peer without it fetches it when it is asked.
	w.wantRead("c", data)
	await(t, "c has a copy", func() bool { return copies(w.store.View().Artifact(a.GetDigest())) == "[a b c]" })
}

func TestPutNeedsASecondPeer(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.peer("b").stop()
	if _, err := w.put("a", random(1, 1000), nil); !errors.Is(err, errs.Unreachable) {
		t.Errorf("error %v", err)
	}
	if w.store.View().Artifact(sum256(random(1, 1000))) != nil {
		t.Error("a record of one copy")
	}
}

func TestAlonePeerHasOneCopyAndGetsASecond(t *testing.T) {
	w := newWorld(t, "a")
	data := random(2, 300_000)
	a := w.mustPut("a", data)
	if copies(a) != "[a]" {
		t.Errorf("copies %s", copies(a))
	}
	w.join("b")
	b := w.start("b", t.TempDir(), nil)
	w.ok(&api.Op{Op: &api.Op_ArtifactCopy{ArtifactCopy: &api.ArtifactCopy{Digest: a.GetDigest(), MemberId: "b", State: api.ArtifactCopy_WANTED}}})
	await(t, "b has the copy that the leader wants", func() bool {
		now := w.store.View().Artifact(a.GetDigest())
		return copies(now) == "[a b]" && len(now.GetWanted()) == 0 && b.Has(a.GetDigest())
	})
}

func TestPutRefuses(t *testing.T) {
	w := newWorld(t, "a")
	data, here := random(3, 1000), random(29, 1000)
	p := w.peer("a")
	for name, err := range map[string]error{
		"other bytes": p.Receive(sum256(data), 1000, feed(random(4, 1000))),
		"too few":     p.Receive(sum256(data), 1000, feed(data[:999])),
		"too many":    p.Receive(sum256(data[:999]), 999, feed(data)),
		"no digest":   p.Receive("../../etc/passwd", 1000, feed(data)),
		"no size":     p.Receive(sum256(data), 0, feed(data)),
		"huge":        p.Receive(sum256(data), MaxSize+1, feed(data)),
	} {
		if !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.peer("a").Receive(sum256(here), uint64(len(here)), feed(here)); err != nil {
		t.Fatal(err)
	}
	if err := p.Receive(sum256(here), uint64(len(here))+1, feed(here)); !errors.Is(err, errs.Invalid) {
		t.Errorf("another size of a file that is here: %v", err)
	}
	if err := p.store.Remove(sum256(here)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection lost")
	if err := p.Receive(sum256(data), 1000, func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("lost: %v", err)
	}
	if full, partial, err := p.store.Digests(); err != nil || len(full)+len(partial) != 0 {
		t.Errorf("left %q, %q, %v", full, partial, err)
	}
	if left, err := os.ReadDir(filepath.Join(p.dir, dirIncoming)); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestDiskBound(t *testing.T) {
	used := atomic.Uint64{}
	w := newWorld(t)
	w.join("a")
	p := w.start("a", t.TempDir(), func(c *Config) {
		c.Usage = func(string) (uint64, uint64, error) { return used.Load(), 1 << 30, nil }
	})
	used.Store(1<<30/100*80 - 999)
	data := random(5, 1000)
	if err := p.Receive(sum256(data), 1000, func() ([]byte, error) { return nil, io.EOF }); !errors.Is(err, errs.Busy) {
		t.Errorf("put over the bound: %v", err)
	}
	used.Store(0)
	// The disk is filled by somebody else while a large file arrives.
	sent := 0
	big := make([]byte, 1<<20)
	if err := p.Receive(sum256(big), 100<<20, func() ([]byte, error) {
		if sent++; sent == 3 {
			used.Store(1 << 30)
		}
		return big, nil
	}); !errors.Is(err, errs.Busy) || sent > 40 {
		t.Errorf("after %d MiB: %v", sent, err)
	}
}

// The bytes that come while a file is fetched are served at once, the last
// one only when all are verified.
func TestServedWhileItArrives(t *testing.T) {
	s, err := OpenStore(t.TempDir(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := random(6, 10_000)
	for _, good := range []bool{true, false} {
		in, err := s.resume(checksum{"sha256", sum256(data)}, int64(len(data)), new(atomic.Int64))
		if err != nil {
			t.Fatal(err)
		}
		r, err := in.follow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Clone(data)
		if !good {
			sent[17] ^= 1
		}
		if _, err := in.Write(sent[:4000]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4000)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent[:4000]) {
			t.Fatalf("the first part: %v", err)
		}
		if _, err := in.Write(sent[4000:]); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(r, make([]byte, 5999)); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		rest := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(r)
			rest <- b
		}()
		select {
		case b := <-rest:
			t.Fatalf("%d bytes before the file was verified", len(b))
		case <-time.After(50 * time.Millisecond):
		}
		if err := in.commit(); (err == nil) != good {
			t.Errorf("commit: %v", err)
		}
		if b := <-rest; (len(b) == 1) != good {
			t.Errorf("good %v: %d bytes at the end", good, len(b))
		}
		r.Close()
		if _, ok := s.Size(sum256(data)); ok != good {
			t.Errorf("stored %v, good %v", ok, good)
		}
		if err := s.Remove(sum256(data)); err != nil {
			t.Fatal(err)
		}
	}
}

// A fetch that was cut off goes on where it was, in another process too, and
// garbage at the end of the part does no harm.
func TestFetchIsResumed(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(7, 3<<20)
	a := w.mustPut("a", data)
	for name, part := range map[string][]byte{"half": data[:1<<20], "garbage": append(bytes.Clone(data[:1<<20]), 1, 2, 3), "too long": append(bytes.Clone(data), 0)} {
		t.Run(name, func(t *testing.T) {
			id := "x" + name[:1]
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, dirPartial), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, dirPartial, a.GetDigest()), part, 0o600); err != nil {
				t.Fatal(err)
			}
			w.join(id)
			p := w.start(id, dir, nil)
			await(t, "the whole file", func() bool {
				b, err := p.read(t, a.GetDigest())
				return err == nil && bytes.Equal(b, data)
			})
		})
	}
}

// Many who ask at once share one transfer.
func TestOneTransferForAll(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	data := random(8, 2<<20)
	a := w.mustPut("a", data)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { w.wantRead("c", data) })
	}
	all.Wait()
	if _, partial, err := w.peer("c").store.Digests(); err != nil || len(partial) != 0 {
		t.Errorf("left %q, %v", partial, err)
	}
	_ = a
}

// The peer that a file comes from dies: another one goes on.
func TestSourceDies(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	data := random(9, 8<<20)
	a := w.mustPut("a", data)
	r, err := w.peer("c").Open(t.Context(), a.GetDigest())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	w.peer("a").stop()
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, data[1000:]) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
}

func TestUnknownIsNotFound(t *testing.T) {
	w := newWorld(t, "a", "b")
	for _, d := range []string{"", "x", "../../etc/passwd", sum256([]byte("nobody has it"))} {
		if _, err := w.peer("a").Open(t.Context(), d); !errors.Is(err, errs.NotFound) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

// A damaged file is moved away and fetched anew.
func TestScrubRepairs(t *testing.T) {
	w := newWorld(t)
	w.join("a")
	w.join("b")
	dir := t.TempDir()
	w.start("a", dir, func(c *Config) { c.ScrubEvery, c.ScrubRate = 20*time.Millisecond, 1<<40 })
	w.start("b", t.TempDir(), nil)
	data := random(10, 200_000)
	a := w.mustPut("a", data)
	path := w.peer("a").store.path(a.GetDigest())
	bad := bytes.Clone(data)
	bad[len(bad)-1] ^= 0x80
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the file is whole again", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Equal(b, data) && copies(w.store.View().Artifact(a.GetDigest())) == "[a b]"
	})
	if b, err := os.ReadFile(filepath.Join(dir, dirQuarantine, a.GetDigest())); err != nil || !bytes.Equal(b, bad) {
		t.Errorf("quarantine: %v", err)
	}
}

// The record says what is on the disk, also after files came and went behind
// the peer's back.
func TestRecordsFollowTheDisk(t *testing.T) {
	w := newWorld(t, "a", "b")
	data := random(11, 1000)
	a := w.mustPut("a", data)
	w.peer("a").stop()
	if err := os.Remove(w.peer("a").store.path(a.GetDigest())); err != nil {
		t.Fatal(err)
	}
	p := w.start("a", w.peer("a").dir, nil)
	await(t, "a says that it lacks it", func() bool { return copies(w.store.View().Artifact(a.GetDigest())) == "[b]" })
	if b, err := p.read(t, a.GetDigest()); err != nil || !bytes.Equal(b, data) {
		t.Fatal(err)
	}
	await(t, "a has it again", func() bool { return copies(w.store.View().Artifact(a.GetDigest())) == "[a b]" })
}
