package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
)

// screen is what a command shows while it runs.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// wait waits for a text behind the one that was waited for last.
func (s *screen) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		s.mu.Lock()
		shown := s.text.String()
		if i := strings.Index(shown, text); i >= 0 {
			s.text.Next(i + len(text))
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%q is not shown; since the last: %s", text, shown)
		}
		tick := time.NewTimer(10 * time.Millisecond)
		<-tick.C
	}
}

// fakeAt serves a fake peer on a socket.
func fakeAt(t *testing.T, path string, peer *clienttest.Peer) (stop func()) {
	t.Helper()
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(peer.Serve(lis))
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ironring") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// The status is shown again and again: what changes is seen, so is that no
// peer answers and that one does again; an interruption ends it, as success.
func TestWatchStatus(t *testing.T) {
	path, fake, out := socketPath(t), clienttest.New(), &screen{}
	stop := fakeAt(t, path, fake.Peer("p1"))
	defer func() { stop() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, _, errOut := testFactory("", map[string]string{"IRONRING_SOCKET": path})
	f.Out = out
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, f, []string{"cluster", "status", "--watch", "--every", "100ms", "--timeout", "2s"})
	}()
	out.wait(t, "healthy")
	out.wait(t, "healthy") // without a change too
	fake.SetStatus(&api.ClusterStatusReply{Health: api.ClusterStatusReply_DEGRADED, Leader: "p2", Problems: []string{"peer p3 does not answer"}})
	out.wait(t, "degraded")
	out.wait(t, "peer p3 does not answer")
	stop()
	out.wait(t, "no status:")
	stop = fakeAt(t, path, fake.Peer("p1"))
	fake.SetStatus(&api.ClusterStatusReply{Leader: "p1", Term: 4, Index: 777})
	out.wait(t, "p1, term 4, index 777")
	select {
	case code := <-done:
		t.Fatalf("it ended with %d", code)
	default:
	}
	cancel()
	select {
	case code := <-done:
		if code != 0 || errOut.Len() > 0 {
			t.Errorf("interrupted, it ended with %d: %s", code, errOut)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

// As JSON, standard output has documents only, and nothing else, also while no
// peer answers.
func TestWatchStatusJSON(t *testing.T) {
	path, fake, out, errOut := socketPath(t), clienttest.New(), &screen{}, &screen{}
	stop := fakeAt(t, path, fake.Peer("p1"))
	defer func() { stop() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, _, _ := testFactory("", map[string]string{"IRONRING_SOCKET": path})
	var all bytes.Buffer
	f.Out, f.Err = io.MultiWriter(out, &all), errOut
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, f, []string{"cluster", "status", "--watch", "-o", "json", "--every", "100ms", "--timeout", "2s"})
	}()
	out.wait(t, `"health"`)
	stop()
	errOut.wait(t, "no status:")
	fake.SetStatus(&api.ClusterStatusReply{Leader: "p1", Term: 4, Index: 777})
	stop = fakeAt(t, path, fake.Peer("p1"))
	out.wait(t, "777")
	cancel()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("it ended with %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	documents := 0
	for dec := json.NewDecoder(&all); ; documents++ {
		var doc map[string]any
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("behind %d documents: %v", documents, err)
		}
	}
	if documents < 2 {
		t.Errorf("%d documents", documents)
	}
}

// A terminal keeps what it shows until there is an answer.
func TestWatchStatusOnATerminal(t *testing.T) {
	path, fake := socketPath(t), clienttest.New()
	stop := fakeAt(t, path, fake.Peer("p1"))
	defer func() { stop() }()
	master, tty := terminalPair(t)
	shown := &screen{}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(shown, master) // ends with an error when the terminal is closed
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, _, _ := testFactory("", map[string]string{"IRONRING_SOCKET": path, "TERM": "xterm"})
	f.Out = tty
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, f, []string{"cluster", "status", "--watch", "--every", "100ms", "--timeout", "2s"})
	}()
	const clear = "\x1b[H\x1b[2J"
	shown.wait(t, clear)
	shown.wait(t, "healthy")
	stop()
	shown.wait(t, "no status:")
	shown.mu.Lock()
	shown.text.Reset()
	shown.mu.Unlock()
	shown.wait(t, "no status:")
	shown.mu.Lock()
	if text := shown.text.String(); strings.Contains(text, clear) {
		t.Errorf("cleared without an answer: %q", text)
	}
	shown.mu.Unlock()
	stop = fakeAt(t, path, fake.Peer("p1"))
	shown.wait(t, clear)
	shown.wait(t, "healthy")
	cancel()
	<-done
	tty.Close()
	<-copied
}

// At a terminal the name of a peer that goes is typed; nobody there: --yes.
func TestDepartureAsks(t *testing.T) {
	for _, verb := range []string{"remove", "leave"} {
		d := newDesk(t)
		d.does(3, "give --yes", "cluster", verb, "p3")
		d.doesAsked(says("yes"), 3, `"yes" is not p3; nothing was done`, "cluster", verb, "p3")
		if done := d.fake.Done(); len(done) > 0 {
			t.Errorf("%s: done all the same: %q", verb, done)
		}
		d.doesAsked(says("p3"), 0, "peer p3 ", "cluster", verb, "p3")
	}
}

// What is to be done after a removal is said, beside its result.
func TestRemovalSaysWhatToDo(t *testing.T) {
	path, fake := socketPath(t), clienttest.New()
	fake.SetStatus(&api.ClusterStatusReply{Notes: []string{"put a new key into key_file"}})
	defer fakeAt(t, path, fake.Peer("p1"))()
	for verb, text := range map[string]string{"remove": "peer p3 is removed\n", "leave": "peer p3 has left\n"} {
		f, out, errOut := testFactory("", map[string]string{"IRONRING_SOCKET": path})
		if code := Main(t.Context(), f, []string{"cluster", verb, "p3", "--yes"}); code != 0 {
			t.Fatalf("%s: exit code %d: %s", verb, code, errOut)
		}
		if out.String() != text || errOut.String() != "note: put a new key into key_file\n" {
			t.Errorf("%s: %q, %q", verb, out, errOut)
		}
		f, out, errOut = testFactory("", map[string]string{"IRONRING_SOCKET": path})
		if code := Main(t.Context(), f, []string{"cluster", verb, "p3", "--yes", "-o", "json"}); code != 0 || !strings.Contains(out.String(), `"put a new key into key_file"`) {
			t.Errorf("%s -o json: %q, %q", verb, out, errOut)
		}
	}
}
