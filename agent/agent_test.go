package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/agenttest"
	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/agent/filehw"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const diskSize = 16 << 20

// world is one machine with one agent and a cluster.
type world struct {
	*agenttest.Cluster
	t       testing.TB
	dir     string
	machine *filehw.Machine
	cfg     agent.Config
	reboots chan string
	clock   chan time.Time

	mu     sync.Mutex
	cancel context.CancelFunc
	ended  chan error
}

// newWorld makes a machine with disks vda and vdb; the agent does not run yet.
func newWorld(t testing.TB, vars efi.Vars) *world {
	t.Helper()
	w := &world{Cluster: agenttest.New(t), t: t, dir: t.TempDir(), reboots: make(chan string, 1), clock: make(chan time.Time, 16)}
	inv := agentproto.Inventory{
		SystemUUID: "4A6A2ED2-9D5C-4C6E-8D59-5F0B3F0D0001", Serial: "SN1", Arch: "amd64", CPUs: 2,
		Interfaces: []agentproto.Interface{{Name: "eth0", MAC: "52:54:00:77:00:01", Carrier: true}},
		Disks: []agentproto.Disk{
			{Name: "/dev/vda", SizeBytes: diskSize, Serial: "DISK-A", WWN: "0x5000c500a1b2c3d4", Tran: "virtio", LogicalBlk: 512},
			{Name: "/dev/vdb", SizeBytes: diskSize, Serial: "DISK-B", Tran: "virtio", LogicalBlk: 512},
		},
	}
	var err error
	w.machine, err = filehw.New(filehw.Config{
		Inventory: inv, EFI: vars,
		Files:      map[string]string{"/dev/vda": w.path("vda"), "/dev/vdb": w.path("vdb")},
		OnReboot:   func() { w.reboots <- "reboot" },
		OnPowerOff: func() { w.reboots <- "poweroff" },
		OnSetClock: func(now time.Time) { w.clock <- now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = agent.Config{
		Hardware: w.machine, StateDir: filepath.Join(w.dir, "state"), Version: "test",
		RedialMin: time.Millisecond, RedialMax: 20 * time.Millisecond,
		ImageStall: 2 * time.Second, ImageNoProgress: 500 * time.Millisecond,
	}
	t.Cleanup(w.kill)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// start runs the agent against these peers.
func (w *world) start(peers ...*agenttest.Peer) {
	w.t.Helper()
	if len(peers) > 0 {
		w.cfg.Line = w.Line(peers...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	w.mu.Lock()
	w.cancel, w.ended = cancel, ended
	w.mu.Unlock()
	go func() { ended <- agent.Run(ctx, w.cfg) }()
}

// kill stops the agent and waits for it.
func (w *world) kill() {
	w.mu.Lock()
	cancel, ended := w.cancel, w.ended
	w.cancel, w.ended = nil, nil
	w.mu.Unlock()
	if cancel != nil {
		cancel()
		<-ended
	}
}

// wait returns how the agent ended by itself.
func (w *world) wait() error {
	w.t.Helper()
	w.mu.Lock()
	ended, cancel := w.ended, w.cancel
	w.ended, w.cancel = nil, nil
	w.mu.Unlock()
	defer cancel()
	select {
	case err := <-ended:
		return err
	case <-time.After(agenttest.Patience):
		w.t.Fatal("the agent does not end")
		return nil
	}
}

func args(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func diskA() agentproto.DiskID {
	return agentproto.DiskID{Name: "/dev/vda", Serial: "DISK-A", WWN: "0x5000c500a1b2c3d4", SizeBytes: diskSize}
}

func diskB() agentproto.DiskID {
	return agentproto.DiskID{Name: "/dev/vdb", Serial: "DISK-B", SizeBytes: diskSize}
}

// judged are disks of which it is not known what lies on them.
func judged(ids ...agentproto.DiskID) []agentproto.JudgedDisk {
	var out []agentproto.JudgedDisk
	for _, id := range ids {
		out = append(out, agentproto.JudgedDisk{DiskID: id})
	}
	return out
}

func TestEnrolAndInventory(t *testing.T) {
	w := newWorld(t, nil)
	dead, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing: TLS times out, or is closed below
	if err != nil {
		t.Fatal(err)
	}
	gone := dead.Addr().String()
	dead.Close()
	w.cfg.Line = w.Line(w.Peer(""))
	w.cfg.Line.Peers = append([]string{gone}, w.cfg.Line.Peers...)
	w.start()
	h := w.WaitHello(1)
	if h.NodeId != w.cfg.Line.Node || h.Nonce != "nonce-1" || h.Version != "test" || h.Incarnation == "" || h.HighestToken != 0 {
		t.Errorf("hello %v", h)
	}
	e := w.Enrols()[0]
	if e.SystemUuid != "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001" || e.Serial != "SN1" || len(e.Macs) != 1 || e.Incarnation != h.Incarnation {
		t.Errorf("enrolment %v", e)
	}
	w.Hello(7)
	w.Command(7, "c1", agentproto.CmdInventory, nil)
	st := w.WaitEnd("c1")
	var inv agentproto.Inventory
	if err := json.Unmarshal(st.Result, &inv); err != nil || st.State != api.CommandStatus_DONE || len(inv.Disks) != 2 || inv.BootMode != "bios" {
		t.Errorf("%v %v", st, err)
	}
	w.Send(&api.AgentDown{Msg: &api.AgentDown_Ping{Ping: &api.AgentPing{Seq: 42}}})
	w.waitUp("pong", func(u *api.AgentUp) bool { return u.GetPong().GetSeq() == 42 })
	w.waitUp("log line", func(u *api.AgentUp) bool {
		return strings.HasPrefix(u.GetLog().GetText(), "command done") && u.GetLog().GetCmdId() == "c1"
	})
}

// waitUp waits for one message that fits.
func (w *world) waitUp(what string, fits func(*api.AgentUp) bool) {
	w.t.Helper()
	deadline := time.Now().Add(agenttest.Patience)
	seen := 0
	for time.Now().Before(deadline) {
		ups := w.Ups()
		for _, u := range ups[min(seen, len(ups)):] {
			if fits(u) {
				return
			}
		}
		seen = len(ups)
		n := seen
		w.Wait(what, func() bool { return w.CountLocked() != n })
	}
	w.t.Fatalf("no %s", what)
}

func TestWrongClockAndWrongCA(t *testing.T) {
	t.Run("cluster ten years ahead", func(t *testing.T) {
		w := newWorld(t, nil)
		ahead := time.Now().AddDate(9, 0, 0)
		w.SetNow(func() time.Time { return ahead })
		w.start(w.Peer(""))
		w.WaitHello(1)
		if got := <-w.clock; got.Sub(ahead).Abs() > time.Second {
			t.Errorf("clock set to %s", got)
		}
	})
	// A machine whose battery is empty believes that it is 2001: for it the
	// cluster's certificates are of a far future.
	t.Run("cluster 25 years ahead", func(t *testing.T) {
		w := newWorld(t, nil)
		w.Cluster = agenttest.NewAt(t, func() time.Time { return time.Now().AddDate(25, 0, 0) })
		w.start(w.Peer(""))
		w.WaitHello(1)
		if got := <-w.clock; got.Year() != time.Now().AddDate(25, 0, 0).Year() {
			t.Errorf("clock set to %s", got)
		}
	})
	t.Run("expired peer", func(t *testing.T) {
		w := newWorld(t, nil)
		p := w.Peer("")
		ahead := time.Now().AddDate(3, 0, 0) // the peer's certificate is for one year
		w.SetNow(func() time.Time { return ahead })
		w.cfg.RefusedLimit = time.Millisecond
		w.start(p)
		if err := w.wait(); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "expired") {
			t.Error(err)
		}
	})
	t.Run("other CA", func(t *testing.T) {
		w := newWorld(t, nil)
		w.cfg.Line = w.Line(w.Peer(""))
		w.cfg.Line.CADigest = strings.Repeat("ab", 32)
		w.start()
		w.kill() // silence: a wrong peer is like a dead one, it may be replaced
		if len(w.Enrols()) != 0 {
			t.Error("enrolled at a stranger")
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t, nil)
		w.Deny(errs.New(errs.Denied, "identity mismatch: uuid"))
		w.cfg.RefusedLimit = 5 * time.Millisecond
		w.start(w.Peer(""))
		if err := w.wait(); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "identity mismatch") {
			t.Error(err)
		}
	})
}

func TestFencing(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.WaitHello(1)
	w.Hello(10)
	w.Command(10, "a", agentproto.CmdInventory, nil)
	w.WaitEnd("a")
	refused := func(st *api.CommandStatus) bool { return st.State == api.CommandStatus_REFUSED }
	w.Command(9, "b", agentproto.CmdInventory, nil)
	if st := w.WaitStatus("b", nil); !refused(st) || st.ErrorKind != "fenced" {
		t.Errorf("older token: %v", st)
	}
	w.Forget()
	w.Command(9, "a", agentproto.CmdInventory, nil)
	if st := w.WaitStatus("a", nil); !refused(st) {
		t.Errorf("older token, known command: %v", st)
	}
	w.Hello(9)
	w.WaitStatus("", refused)
	w.Cancel(9, "a")
	w.Forget()
	w.Command(11, "a", agentproto.CmdInventory, nil) // a higher token is a hello too
	if st := w.WaitStatus("a", func(st *api.CommandStatus) bool { return !refused(st) }); st.State != api.CommandStatus_DONE {
		t.Errorf("known command: %v", st)
	}
	w.Command(10, "c", agentproto.CmdInventory, nil)
	if st := w.WaitStatus("c", nil); !refused(st) {
		t.Errorf("token below the command's: %v", st)
	}
	w.Command(11, "a", agentproto.CmdReboot, nil)
	w.WaitStatus("a", func(st *api.CommandStatus) bool { return refused(st) && st.ErrorKind == "conflict" })
	w.Command(11, "d", "dance", nil)
	if st := w.WaitEnd("d"); st.State != api.CommandStatus_FAILED || st.ErrorKind != "unsupported" {
		t.Errorf("unknown command: %v", st)
	}
	w.Cancel(11, "never")
	if st := w.WaitStatus("never", nil); st.State != api.CommandStatus_UNKNOWN {
		t.Errorf("cancel of nothing: %v", st)
	}
}

// A command goes on while the peer with the stream dies, and its result is
// there for whoever asks; it runs once.
func TestRedialWithCommandRunning(t *testing.T) {
	w := newWorld(t, nil)
	p1, p2 := w.Peer(""), w.Peer("")
	w.start(p1, p2)
	img := newImage(t, 8<<20)
	gate := img.hold(3 << 20)
	holder := w.Hello(1)
	w.Command(1, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
	w.WaitStatus("w", func(st *api.CommandStatus) bool {
		return st.DoneBytes >= 1<<20 && st.TotalBytes == 8<<20 && st.Percent > 10
	})
	w.Forget()
	holder.Stop()
	h := w.WaitHello(2)
	if h.HighestToken != 1 || len(h.Commands) != 1 || h.Commands[0].State != api.CommandStatus_RUNNING {
		t.Errorf("hello %v", h)
	}
	if other := w.Hello(2); other == holder {
		t.Error("the stream is at the dead peer")
	}
	w.Command(2, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
	w.WaitStatus("w", func(st *api.CommandStatus) bool { return st.State == api.CommandStatus_RUNNING })
	close(gate)
	st := w.WaitEnd("w")
	if st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	w.Forget()
	w.Command(2, "w", agentproto.CmdWriteImage, nil)
	if again := w.WaitEnd("w"); string(again.Result) != string(st.Result) {
		t.Errorf("other result: %v", again)
	}
	if n := img.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	img.check(t, w.path("vda"))
}

func TestRestart(t *testing.T) {
	w := newWorld(t, nil)
	p := w.Peer("")
	w.start(p)
	h1 := w.WaitHello(1)
	w.Hello(5)
	w.Command(5, "inv", agentproto.CmdInventory, nil)
	w.WaitEnd("inv")
	img := newImage(t, 8<<20)
	gate := img.hold(3 << 20)
	defer close(gate)
	w.Command(5, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
	w.WaitStatus("w", func(st *api.CommandStatus) bool { return st.DoneBytes >= 1<<20 })
	w.kill()

	w.start(p)
	h2 := w.WaitHello(2)
	if h2.Incarnation != h1.Incarnation || h2.HighestToken != 5 || len(h2.Commands) != 2 {
		t.Fatalf("hello after restart %v", h2)
	}
	if st := h2.Commands[0]; st.State != api.CommandStatus_DONE || len(st.Result) == 0 {
		t.Errorf("inventory: %v", st)
	}
	if st := h2.Commands[1]; st.State != api.CommandStatus_FAILED || st.Error != "interrupted by an agent restart" || st.ErrorKind != "internal" {
		t.Errorf("write: %v", st)
	}
	// The same key: for the cluster it is the same machine.
	es := w.Enrols()
	if k1, k2 := keyOf(t, es[0].CsrDer), keyOf(t, es[len(es)-1].CsrDer); k1 != k2 {
		t.Error("another key for the same nonce")
	}
	w.Command(4, "x", agentproto.CmdInventory, nil)
	if st := w.WaitStatus("x", nil); st.State != api.CommandStatus_REFUSED {
		t.Errorf("token fell: %v", st)
	}
	w.kill()

	// What cannot be read is forgotten, and said so by a new incarnation.
	if err := os.WriteFile(filepath.Join(w.cfg.StateDir, "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(p)
	if h := w.WaitHello(3); h.Incarnation == h1.Incarnation || len(h.Commands) != 0 {
		t.Errorf("hello with a damaged file %v", h)
	}
	w.kill()

	// Another boot starts from nothing.
	w.cfg.Line.Nonce = "nonce-2"
	w.start()
	if h := w.WaitHello(4); h.Nonce != "nonce-2" || h.HighestToken != 0 || len(h.Commands) != 0 {
		t.Errorf("hello of another boot %v", h)
	}
}

func TestRebootAndPowerOff(t *testing.T) {
	for _, name := range []string{agentproto.CmdReboot, agentproto.CmdPowerOff} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.start(w.Peer(""))
			w.Hello(1)
			w.Command(1, "r", name, nil)
			if err := w.wait(); err != nil {
				t.Error(err)
			}
			if got := <-w.reboots; got != name {
				t.Errorf("machine did %s", got)
			}
			// Run has ended, and the result was told before.
			if st := w.WaitEnd("r"); st.State != api.CommandStatus_DONE {
				t.Error(st)
			}
		})
	}
}

func TestCancelAndOneAtATime(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	img := newImage(t, 8<<20)
	gate := img.hold(3 << 20)
	defer close(gate)
	w.Hello(1)
	w.Command(1, "w", agentproto.CmdWriteImage, args(t, img.args("", diskA())))
	w.WaitStatus("w", func(st *api.CommandStatus) bool { return st.DoneBytes >= 1<<20 })
	w.Command(1, "e", agentproto.CmdEraseMetadata, args(t, agentproto.EraseArgs{Disks: judged(diskA(), diskB())}))
	w.WaitStatus("e", func(st *api.CommandStatus) bool { return strings.Contains(st.Message, "waits") })
	w.Cancel(1, "w")
	if st := w.WaitEnd("w"); st.State != api.CommandStatus_CANCELLED {
		t.Error(st)
	}
	if st := w.WaitEnd("e"); st.State != api.CommandStatus_DONE {
		t.Error(st)
	}
}

func TestLogsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	p := w.Peer("")
	w.cfg.Line = w.Line(p)
	p.Stop()
	// Each refused connection is a line; far more than the queue holds.
	w.cfg.RedialMin, w.cfg.RedialMax = time.Microsecond, time.Microsecond
	var n int
	var mu sync.Mutex
	full := make(chan struct{})
	w.cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		mu.Lock()
		n++
		now := n
		mu.Unlock()
		if now == 1200 {
			close(full)
		}
		if now > 1200 {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
		return nil, fmt.Errorf("no route")
	}
	w.start()
	<-full
	w.Peer(p.Addr)
	w.waitUp("line about dropped lines", func(u *api.AgentUp) bool { return strings.Contains(u.GetLog().GetText(), "log lines were dropped") })
}

func TestParseLine(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	ok := "quiet ironring.node=n1 ironring.nonce=x ironring.peers=10.0.0.1:6386,[fd00::1]:6386 ironring.ca=" + strings.ToUpper(digest) + " BOOTIF=01-52-54-00-AA-bb-cc"
	l, err := agent.ParseLine(ok)
	if err != nil || l.Node != "n1" || len(l.Peers) != 2 || l.BootMAC != "52:54:00:aa:bb:cc" || l.CADigest != digest {
		t.Errorf("%+v %v", l, err)
	}
	for _, bad := range []string{"", "ironring.node=n1", strings.Replace(ok, "=x", "=", 1), strings.Replace(ok, "10.0.0.1:6386", "10.0.0.1", 1), strings.Replace(ok, "0A0A", "0A", 1)} {
		if _, err := agent.ParseLine(bad); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
