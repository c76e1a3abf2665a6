package artifact

import (
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
)

// good are the peers whose disks hold a file with the right bytes, also those
// that are dead.
func (w *world) good(digest string) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.peers {
		if b, err := os.ReadFile(p.store.path(digest)); err == nil && sum256(b) == digest {
			out = append(out, id)
		}
	}
	return out
}

// broken says which record has too few good files, "" when none has.
func (w *world) broken() string {
	v := w.store.View()
	for a := range v.Artifacts() {
		need := min(2, len(v.Members()))
		if good := w.good(a.GetDigest()); len(good) < need {
			return fmt.Sprintf("artifact %s is recorded at %s, and good only at %q", a.GetDigest()[:12], copies(a), good)
		}
	}
	return ""
}

func (w *world) restart(id string) {
	w.t.Helper()
	p := w.peer(id)
	p.stop()
	w.start(id, p.dir, nil)
}

// orphans are the files on any disk that no record names, and parts of files.
func (w *world) orphans() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.store.View()
	for _, p := range w.peers {
		full, partial, err := p.store.Digests()
		if err != nil {
			w.t.Fatal(err)
		}
		n += len(partial)
		for _, d := range full {
			if v.Artifact(d) == nil {
				n++
			}
		}
	}
	return n
}

// sweepAll has all peers that live look at their files now.
func (w *world) sweepAll() {
	w.t.Helper()
	for _, p := range w.all() {
		if p.alive() {
			w.sweeps(p)
		}
	}
}

// settled checks what must be so when all are back and hours have passed.
func (w *world) settled() {
	w.t.Helper()
	for range 2 { // a file that is first seen late goes an hour later
		w.sweepAll()
		w.pass(61 * time.Minute)
	}
	await(w.t, "no file without a record", func() bool { return w.orphans() == 0 })
	if b := w.broken(); b != "" {
		w.t.Error(b)
	}
}

// A put is killed, or stands still for hours, at each of its moments, at the
// peer that takes it, the one that gets the copy, or both.
func TestKilledPut(t *testing.T) {
	data := random(40, 200_000)
	digest := sum256(data)
	for _, moment := range []string{received, replicated, proposed} {
		for who, victims := range map[string][]string{"source": {"a"}, "target": {"b"}, "both": {"a", "b"}, "nobody": nil} {
			for _, pause := range []time.Duration{0, 2 * time.Hour} {
				t.Run(fmt.Sprintf("%s/%s/%s", moment, who, pause), func(t *testing.T) {
					w := newWorld(t, "a", "b", "c")
					_, err := w.put("a", data, func(at string) bool {
						if at != moment {
							return true
						}
						for _, id := range victims {
							w.peer(id).stop()
						}
						w.pass(pause)
						w.sweepAll()
						return who == "target" || who == "nobody" // the source goes on
					})
					if b := w.broken(); b != "" {
						t.Fatalf("%s (put: %v)", b, err)
					}
					for _, id := range victims {
						w.restart(id)
					}
					if err != nil || w.store.View().Artifact(digest) == nil {
						w.mustPut("a", data) // the client tries again
					}
					if b := w.broken(); b != "" {
						t.Fatal(b)
					}
					w.settled()
					w.ok(&api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: digest}}})
					w.settled()
					if good := w.good(digest); len(good) > 0 {
						t.Errorf("dropped, and still at %q", good)
					}
				})
			}
		}
	}
}

// What was given up is collected, also by peers that were killed while they
// did so, and a put in the middle of it is safe.
func TestKilledCollection(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	data := random(41, 50_000)
	digest := w.mustPut("a", data).GetDigest()
	drop := &api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: digest}}}
	w.ok(drop)
	w.restart("a") // knows nothing of when it was dropped
	w.sweeps(w.peer("b"))
	w.pass(61 * time.Minute)
	await(t, "b has collected its file", func() bool { return !w.peer("b").Has(digest) })
	w.mustPut("a", data)
	if b := w.broken(); b != "" {
		t.Fatal(b)
	}
	w.ok(drop)
	w.peer("a").stop()
	w.peer("b").stop()
	w.pass(3 * time.Hour)
	w.restart("a")
	w.restart("b")
	w.settled()
	if n := len(w.good(digest)); n != 0 {
		t.Errorf("%d files of what was dropped", n)
	}
}

// Whatever is killed, paused and dropped in whatever order: what is recorded
// is on two disks, and nothing stays that is not recorded.
func TestAnyKill(t *testing.T) {
	contents := [][]byte{random(42, 20_000), random(43, 150_000)}
	ids := []string{"a", "b", "c"}
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, ids...)
		defer w.stopAll()
		alive := map[string]bool{"a": true, "b": true, "c": true}
		id := rapid.SampledFrom(ids)
		kill := func() {
			v := id.Draw(r, "victim")
			w.peer(v).stop()
			alive[v] = false
		}
		for range rapid.IntRange(2, 6).Draw(r, "steps") {
			data := rapid.SampledFrom(contents).Draw(r, "content")
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0, 1:
				at := id.Draw(r, "at")
				if !alive[at] {
					w.restart(at)
					alive[at] = true
				}
				moment := rapid.SampledFrom([]string{received, replicated, proposed, ""}).Draw(r, "moment")
				_, _ = w.put(at, data, func(now string) bool { // it may fail; the promise is of what is recorded
					if now == moment {
						kill()
						w.pass(time.Duration(rapid.IntRange(0, 70).Draw(r, "pause")) * time.Minute)
						w.sweepAll()
					}
					return alive[at]
				})
			case 2:
				kill()
			case 3:
				if v := id.Draw(r, "back"); !alive[v] {
					w.restart(v)
					alive[v] = true
				}
			case 4:
				if w.store.View().Artifact(sum256(data)) != nil {
					w.ok(&api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: sum256(data)}}})
				}
			case 5:
				w.pass(time.Duration(rapid.IntRange(1, 90).Draw(r, "minutes")) * time.Minute)
			}
			if b := w.broken(); b != "" {
				r.Fatal(b)
			}
		}
		for _, v := range ids {
			if !alive[v] {
				w.restart(v)
			}
		}
		w.settled()
	})
}
