package cli

import (
	"bytes"
	"context"
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
