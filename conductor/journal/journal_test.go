package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const node = "00000000-0000-4000-8000-000000000001"

// moved is a wall clock that is off.
type moved struct {
	clock.System
	by time.Duration
}

func (m moved) Now() time.Time { return time.Now().Add(m.by) }

// open gives a journal; start makes it write until the test ends.
func open(t *testing.T, dir string, change func(*Config)) *Journal {
	t.Helper()
	cfg := Config{Dir: dir, Peer: "p1", Clock: clock.System{}, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	j, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	j.full = func(string) bool { return false } // whatever disk the test runs on
	return j
}

func start(t *testing.T, j *Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func log(text string) *api.JournalEvent {
	return &api.JournalEvent{NodeId: node, Kind: KindLog, Text: text}
}

func texts(t *testing.T, j *Journal) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	evs, err := j.Read(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, ev := range evs {
		out = append(out, ev.GetText())
	}
	return out
}

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, nil)
	stop := start(t, j)
	given := log("one")
	ev := j.Append(given)
	if ev.GetPeer() != "p1" || ev.GetSeq() == 0 || ev.GetAtMs() == 0 || given.GetSeq() != 0 {
		t.Errorf("appended %v, given %v", ev, given)
	}
	j.Append(log("two"))
	j.Store(&api.JournalEvent{NodeId: node, Peer: "p2", Seq: 9, AtMs: 1, Text: "copy"})
	j.Append(&api.JournalEvent{NodeId: "../../etc/passwd", Text: "no node"})
	if got := texts(t, j); !slices.Equal(got, []string{"copy", "one", "two"}) {
		t.Errorf("read %q", got)
	}
	j.Append(log("three"))
	stop() // writes what waits
	again := open(t, dir, nil)
	start(t, again)
	if got := texts(t, again); !slices.Equal(got, []string{"copy", "one", "two", "three"}) {
		t.Errorf("read after a restart %q", got)
	}
	if evs, err := again.Read(t.Context(), "no-node"); err != nil || len(evs) != 0 {
		t.Errorf("%v %v", evs, err)
	}
}

// Whatever is cut off or damaged costs its own record and no other.
func TestDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "events")
		var b []byte
		var ends []int
		for i := range n {
			var err error
			if b, err = appendFrame(b, &api.JournalEvent{NodeId: node, Seq: uint64(i + 1), Text: rapid.String().Draw(t, "text")}); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, len(b))
		}
		cut := rapid.IntRange(0, len(b)).Draw(t, "cut")
		torn := slices.Clone(b[:cut])
		// The next process appends to what is there.
		later, err := appendFrame(torn, &api.JournalEvent{NodeId: node, Seq: 1000})
		if err != nil {
			t.Fatal(err)
		}
		got := parseFrames(later)
		whole := 0
		for _, e := range ends {
			if e <= cut {
				whole++
			}
		}
		if len(got) != whole+1 || got[whole].GetSeq() != 1000 {
			t.Fatalf("cut at %d of %d: %d events, want %d and the later one", cut, len(b), len(got), whole)
		}
		flip := rapid.IntRange(0, len(b)-1).Draw(t, "flip")
		b[flip] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got := parseFrames(b); len(got) != n-1 {
			t.Fatalf("a flipped bit at %d: %d events of %d", flip, len(got), n)
		}
	})
}

func FuzzParse(f *testing.F) {
	b, _ := appendFrame(nil, log("x"))
	f.Add(b)
	f.Add([]byte(frameMark))
	f.Fuzz(func(t *testing.T, b []byte) { parseFrames(b) })
}

func TestTornFile(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, nil)
	stop := start(t, j)
	j.Append(log("whole"))
	j.Append(log("torn"))
	stop()
	path := j.path(node)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()-3); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, nil)
	start(t, again)
	again.Append(log("later"))
	if got := texts(t, again); !slices.Equal(got, []string{"whole", "later"}) {
		t.Errorf("read %q", got)
	}
}

func TestBounded(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	start(t, j)
	const n = 3000
	for i := range n {
		j.Append(&api.JournalEvent{NodeId: node, Kind: KindLog, Text: fmt.Sprintf("%06d%s", i, strings.Repeat("x", 4000)), CmdId: strings.Repeat("y", 1<<16)})
		if i%100 == 0 {
			j.Flush(t.Context())
		}
	}
	got := texts(t, j)
	if len(got) == 0 || len(got) >= n || !strings.HasPrefix(got[len(got)-1], fmt.Sprintf("%06d", n-1)) {
		t.Fatalf("%d events, the last %.6s", len(got), got[len(got)-1])
	}
	for i := range got[1:] {
		if got[i][:6] >= got[i+1][:6] {
			t.Fatalf("hole or disorder at %.6s, %.6s", got[i], got[i+1])
		}
	}
	files, err := filepath.Glob(filepath.Join(j.cfg.Dir, node[:2], "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > segmentBytes {
			t.Errorf("%s has %d bytes, %v", f, st.Size(), err)
		}
	}
}

// Readers see no hole while files are renamed under them.
func TestReadDuringRotation(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	start(t, j)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2500 {
			j.Append(log(fmt.Sprintf("%06d%s", i, strings.Repeat("x", 1500))))
			if i%50 == 0 {
				j.Flush(context.Background())
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		got := texts(t, j)
		for i := 1; i < len(got); i++ {
			var a, b int
			if _, err := fmt.Sscanf(got[i-1][:6]+" "+got[i][:6], "%d %d", &a, &b); err != nil || b != a+1 {
				t.Fatalf("hole between %d and %d (%v)", a, b, err)
			}
		}
	}
}

// Texts from machines are cut at a character; what is no UTF-8 could not be
// stored or sent.
func TestTextFromMachines(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	start(t, j)
	j.Append(log(strings.Repeat("x", maxText-1) + "ß"))
	j.Append(log("bad \xff\xfe bytes"))
	j.Append(log("next"))
	got := texts(t, j)
	if len(got) != 3 || len(got[0]) != maxText-1 || got[1] != "bad  bytes" {
		t.Errorf("read %d: %q", len(got), got)
	}
	for _, s := range got {
		if !utf8.ValidString(s) {
			t.Errorf("%q", s)
		}
	}
}

// The numbers of a peer only grow, also when its clock was set back between
// two starts.
func TestSequenceAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for _, by := range []time.Duration{0, -30 * 365 * 24 * time.Hour, time.Hour, -time.Hour} {
		j := open(t, dir, func(c *Config) { c.Clock = moved{by: by} })
		first := j.Append(log("x")).GetSeq()
		if first <= last {
			t.Errorf("clock off by %v: starts at %d after %d", by, first, last)
		}
		last = j.Append(log("y")).GetSeq()
	}
}

func TestDiskFull(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	j := open(t, t.TempDir(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&locked{&mu, &out}, nil)) })
	isFull := true
	j.full = func(string) bool { mu.Lock(); defer mu.Unlock(); return isFull }
	start(t, j)
	for range 10 {
		j.Append(log("lost"))
		j.Flush(t.Context())
	}
	if got := texts(t, j); len(got) != 0 {
		t.Errorf("written: %q", got)
	}
	mu.Lock()
	isFull = false
	said := strings.Count(out.String(), "80 %")
	mu.Unlock()
	if said != 1 {
		t.Errorf("said %d times that the disk is full", said)
	}
	j.Append(log("kept"))
	if got := texts(t, j); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("read %q", got)
	}
}

// A write that fails, here because a directory is in the way, costs its events
// only.
func TestWriteFails(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	if err := os.MkdirAll(j.path(node), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, j)
	j.Append(log("lost"))
	j.Flush(t.Context())
	if err := os.Remove(j.path(node)); err != nil {
		t.Fatal(err)
	}
	j.Append(log("kept"))
	if got := texts(t, j); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("read %q", got)
	}
}

// Append never waits, not even when nobody writes.
func TestAppendNeverBlocks(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	_, stop := j.Follow(node)
	defer stop()
	for range queueLength + 1000 {
		j.Append(log("x"))
	}
	if j.dropped != 1000 {
		t.Errorf("dropped %d", j.dropped)
	}
}

// After Run has ended nothing waits for it.
func TestFlushAfterEnd(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	stop := start(t, j)
	j.Append(log("x"))
	stop()
	if got := texts(t, j); !slices.Equal(got, []string{"x"}) {
		t.Errorf("read %q", got)
	}
}

func TestFollow(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	events, stop := j.Follow(node)
	j.Append(log("a"))
	j.Append(&api.JournalEvent{NodeId: strings.Replace(node, "1", "2", 1), Text: "another node"})
	j.Append(log("b"))
	if a, b := <-events, <-events; a.GetText() != "a" || b.GetText() != "b" {
		t.Errorf("%v %v", a, b)
	}
	stop()
	j.Append(log("c"))
	select {
	case ev := <-events:
		t.Errorf("after stop: %v", ev)
	default:
	}
}

func TestFacts(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	j.Append(&api.JournalEvent{NodeId: node, Kind: KindDHCP, Stage: "dhcp", AtMs: 5})
	j.Append(&api.JournalEvent{NodeId: node, Kind: KindHTTP, Stage: "kernel", AtMs: 6})
	j.Store(&api.JournalEvent{NodeId: node, Peer: "p2", Kind: KindDHCP, AtMs: 3}) // came late
	j.Update(node, func(f *api.LiveFacts) { f.BmcContactMs = 7 })
	f := j.Facts(node)
	if f.GetDhcpContactMs() != 5 || f.GetBootContactMs() != 6 || f.GetBootStage() != "kernel" || f.GetBmcContactMs() != 7 {
		t.Errorf("%v", f)
	}
	f.BmcContactMs = 0
	if j.Facts(node).GetBmcContactMs() != 7 {
		t.Error("facts are shared")
	}
	j.Forget(node)
	if f := j.Facts(node); f.GetBootStage() != "" {
		t.Errorf("%v", f)
	}
}

// The stage is the furthest of the newest boot, in whatever order events come.
func TestBootStage(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	at := time.Now().UnixMilli() + 1000
	see := func(nonce, stage string, after int64, want string) {
		t.Helper()
		j.Append(&api.JournalEvent{NodeId: node, Kind: KindHTTP, BootNonce: nonce, Stage: stage, AtMs: at + after})
		if got := j.Facts(node).GetBootStage(); got != want {
			t.Errorf("%s %s: stage %q, not %q", nonce, stage, got, want)
		}
	}
	see("a", "dhcp", 0, "dhcp")
	see("a", "tftp", 1, "tftp")
	see("a", "dhcp", 2, "tftp") // iPXE asks once more
	see("a", "agent", 8, "agent")
	see("a", "dhcp", 0, "agent") // an offer that was delayed
	see("a", "kernel", 9, "agent")
	see("b", "dhcp", 20, "dhcp")
	see("a", "agent", 9, "dhcp") // a copy from another peer
	see("b", "script", 21, "script")
	see("", "dhcp", 30, "dhcp") // the disk is next
	see("", "script", 31, "script")
	j.NewBoot(node, "")
	if f := j.Facts(node); f.GetBootStage() != "" {
		t.Errorf("%v", f)
	}
	see("", "dhcp", 40, "dhcp")
	j.NewBoot(node, "c")
	j.Reached(node, "c", "agent")
	see("c", "initramfs", 50, "agent")
}

func TestProgressEnds(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	j.Update(node, func(f *api.LiveFacts) { f.Progress = &api.Progress{Percent: 40, AtMs: 5} })
	j.Store(&api.JournalEvent{NodeId: node, Peer: "p2", Kind: KindStep, AtMs: 4}) // of the step before
	if j.Facts(node).GetProgress().GetPercent() != 40 {
		t.Error("the progress is gone")
	}
	j.Append(&api.JournalEvent{NodeId: node, Kind: KindStep, AtMs: 6})
	if p := j.Facts(node).GetProgress(); p != nil {
		t.Errorf("progress of a step that has ended: %v", p)
	}
}

func TestSweep(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	start(t, j)
	other := strings.Replace(node, "1", "2", 1)
	j.Append(log("x"))
	j.Append(&api.JournalEvent{NodeId: other, Text: "y"})
	j.Flush(t.Context())
	gone := func(id string) bool { return id != node }
	if err := j.Sweep(gone); err != nil || len(texts(t, j)) != 1 {
		t.Fatalf("a file in use was removed, %v", err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, id := range []string{node, other} {
		if err := os.Chtimes(j.path(id), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sweep(gone); err != nil || len(texts(t, j)) != 0 {
		t.Errorf("the file of a node that is gone stays, %v", err)
	}
	if evs, err := j.Read(t.Context(), other); err != nil || len(evs) != 1 {
		t.Errorf("%v, %v", evs, err)
	}
}

func TestCopier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string][]string{}
		silent := false
		c := NewCopier(
			func(node string) string { return map[string]string{"a": "p2", "b": "p3"}[node] },
			func(ctx context.Context, peer string, events []*api.JournalEvent) error {
				mu.Lock()
				hang := silent && peer == "p3"
				mu.Unlock()
				if hang {
					<-ctx.Done()
					return ctx.Err()
				}
				mu.Lock()
				defer mu.Unlock()
				for _, ev := range events {
					got[peer] = append(got[peer], ev.GetText())
				}
				return errors.New("of no consequence")
			}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		for _, id := range []string{"a", "b", "nobody"} {
			c.Add(&api.JournalEvent{NodeId: id, Text: id})
		}
		<-time.After(time.Second)
		mu.Lock()
		if !slices.Equal(got["p2"], []string{"a"}) || !slices.Equal(got["p3"], []string{"b"}) || len(got) != 2 {
			t.Errorf("copied %v", got)
		}
		silent = true
		mu.Unlock()
		// A silent peer costs copies, never time of the caller.
		for range 3 * queueLength {
			c.Add(&api.JournalEvent{NodeId: "b", Text: "x"})
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
