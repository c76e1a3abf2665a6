package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	nodes "github.com/ironring/ironring/node"
	"github.com/ironring/ironring/sim/machine"
)

// patience bounds whatever a test waits for; only a test that fails waits so
// long.
const patience = 3 * time.Minute

// imageMiB is more than a clean wipes at either end of a disk, so that data
// remains.
const imageMiB = 6

// fixture is a lab of one peer that cases share; each has machines of its own.
type fixture struct {
	*lab
	bad *badImages
	mu  sync.Mutex // held while a machine is added
}

// startFixture is a lab with one peer.
func startFixture(t *testing.T, imageRate int) *fixture {
	t.Helper()
	return startFixtureOf(t, 1, imageRate)
}

func startFixtureOf(t *testing.T, peers, imageRate int) *fixture {
	t.Helper()
	l := &lab{dir: shortDir(t), start: time.Now(), opts: Options{
		Peers: peers, Binary: binary(t), ImageMiB: imageMiB, ImageRate: imageRate, BMCReadTimeout: 5 * time.Second, Progress: t.Output(), Logger: quiet,
	}}
	// Not of t.Context: that ends before Cleanup.
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		if err := l.down(); err != nil {
			t.Error(err)
		}
		cancel()
		if t.Failed() {
			for _, p := range l.peers {
				t.Logf("the log of %s ends:\n%s", p.id, tail(p.dir+"/log"))
			}
		}
	})
	if err := l.up(ctx); err != nil {
		t.Fatal(err)
	}
	f := &fixture{lab: l, bad: startBadImages(l.images.body)}
	l.later(func() error { f.bad.stop(); return nil })
	return f
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// bare makes a machine that no node stands for.
func (f *fixture) bare(t *testing.T, disks ...machine.Disk) *node {
	t.Helper()
	if len(disks) == 0 {
		disks = []machine.Disk{machineDisk}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.addMachine(disks...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// enrolled makes a machine and its node. A case that fails shows what Ironring
// itself says of the node.
func (f *fixture) enrolled(t *testing.T, disks ...machine.Disk) *node {
	t.Helper()
	n := f.bare(t, disks...)
	if err := f.enrol(within(t), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := f.ironring("node", "explain", n.name)
			hist, _ := f.ironring("node", "history", n.name)
			t.Logf("explain %s:\n%s\nhistory:\n%s", n.name, out, hist)
		}
	})
	return n
}

// ready makes a machine whose node is available.
func (f *fixture) ready(t *testing.T, disks ...machine.Disk) *node {
	t.Helper()
	n := f.enrolled(t, disks...)
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	f.does(t, n, api.Event_EV_PROVIDE, nil, api.State_AVAILABLE)
	return n
}

func provision(t *testing.T, n *node, verb api.Event, args any) *api.ProvisionRequest {
	t.Helper()
	req := &api.ProvisionRequest{Node: n.name, Verb: verb}
	if args != nil {
		var err error
		if req.Args, err = json.Marshal(args); err != nil {
			t.Fatal(err)
		}
	}
	return req
}

// asks fires a verb and gives the index that it was accepted at.
func (f *fixture) asks(t *testing.T, n *node, verb api.Event, args any) uint64 {
	t.Helper()
	reply, err := f.client.Provision(within(t), provision(t, n, verb, args))
	if err != nil {
		t.Fatalf("%s %s: %v", nodes.VerbName(verb), n.name, err)
	}
	return reply.GetIndex()
}

// does fires a verb that must lead to a state.
func (f *fixture) does(t *testing.T, n *node, verb api.Event, args any, want api.State) {
	t.Helper()
	after := f.asks(t, n, verb, args)
	if _, err := f.client.Wait(within(t), n.name, client.Until{State: want, After: after}, nil); err != nil {
		t.Fatalf("%s %s: %v", nodes.VerbName(verb), n.name, err)
	}
	if want == api.State_AVAILABLE {
		n.written = n.machine.Stats().Written
	}
}

// fails fires a verb whose work must fail; see rests.
func (f *fixture) fails(t *testing.T, n *node, verb api.Event, args any, want, rest api.State, why ...string) string {
	t.Helper()
	return f.rests(t, n, f.asks(t, n, verb, args), want, rest, why...)
}

// rests waits until work that should have led to want has failed, and checks
// where the node rests, and that the record and `explain` say why. It gives
// the reason.
func (f *fixture) rests(t *testing.T, n *node, after uint64, want, rest api.State, why ...string) string {
	t.Helper()
	ev, err := f.client.Wait(within(t), n.name, client.Until{State: want, After: after}, nil)
	got := ev.GetNode()
	var failed *client.WorkFailed
	if !errors.As(err, &failed) || got.GetState() != rest {
		t.Fatalf("%s is in state %q, error %v; a failure that ends in %q was expected", n.name, nodes.StateName(got.GetState()), err, nodes.StateName(rest))
	}
	ex, err := f.client.Explain(within(t), &api.ExplainRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range why {
		if !strings.Contains(failed.Reason, w) || !strings.Contains(got.GetLastError(), w) || !strings.Contains(ex.GetSummary(), w) {
			t.Errorf("%s: %q is not in the reason %q, in last_error %q or in the explanation %q", n.name, w, failed.Reason, got.GetLastError(), ex.GetSummary())
		}
	}
	t.Logf("%s: %s", n.name, failed.Reason)
	return failed.Reason
}

// image is what a deploy of the right image is asked for with.
func (f *fixture) image(n *node) map[string]any {
	return map[string]any{"image": f.images.url(n.name), "checksum": f.images.checksum}
}

// deploys deploys the right image and sees that the machine runs it from one
// of its disks.
func (f *fixture) deploys(t *testing.T, n *node, disk int) {
	t.Helper()
	boots := n.machine.Stats().DiskBoots
	f.does(t, n, api.Event_EV_DEPLOY, f.image(n), api.State_ACTIVE)
	f.bootsDisk(t, n, boots+1)
	if !sameBytes(n.machine.DiskPath(disk), f.images.body) {
		t.Errorf("%s: disk %d does not hold the image", n.name, disk)
	}
}

// bootsDisk waits until the machine has come up from a disk that many times.
func (f *fixture) bootsDisk(t *testing.T, n *node, times int) {
	t.Helper()
	eventually(t, n.name+" boots from its disk", func() bool { return n.machine.Stats().DiskBoots >= times })
	if st := n.machine.Stats(); st.DiskBoots != times || st.Marker != f.images.marker {
		t.Errorf("%s: %d boots from disk, not %d; boot sector %q", n.name, st.DiskBoots, times, st.Marker)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("not seen: ", what)
		}
	}
}

// unbootable checks that firmware would find nothing on a disk.
func unbootable(t *testing.T, n *node, disk int) {
	t.Helper()
	if !sameBytes(n.machine.DiskPath(disk), make([]byte, 1<<20)) {
		t.Errorf("%s: the head of disk %d is not empty", n.name, disk)
	}
}

// untouched checks that nothing was written since the node was available, or
// ever.
func untouched(t *testing.T, n *node) {
	t.Helper()
	if w := n.machine.Stats().Written - n.written; w != 0 {
		t.Errorf("%s: %d bytes were written to its disks", n.name, w)
	}
}

func (f *fixture) state(t *testing.T, n *node) api.State {
	t.Helper()
	reply, err := f.client.GetNode(within(t), &api.GetNodeRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	return reply.GetNode().GetState()
}

func (f *fixture) set(t *testing.T, n *node, set map[string]string) {
	t.Helper()
	if _, err := f.client.UpdateNode(within(t), &api.UpdateNodeRequest{Node: n.name, Set: set}); err != nil {
		t.Fatalf("set %s: %v", n.name, err)
	}
}

// refused checks the kind of an error, and that its text holds what helps.
func refused(t *testing.T, err error, kind client.Kind, why ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("kind %v was expected, not %v: %v", kind, client.KindOf(err), err)
		return
	}
	for _, w := range why {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in %q", w, err)
		}
	}
}

// ironring runs the program as a person does at the first peer's socket; out
// is what it printed.
func (f *fixture) ironring(args ...string) (out string, code int) {
	return f.run("", args...)
}

func (f *fixture) run(stdin string, args ...string) (out string, code int) {
	return f.runAt(f.peers[0], stdin, args...)
}

// runAt is run at the socket of a peer.
func (f *fixture) runAt(p *peer, stdin string, args ...string) (out string, code int) {
	var b bytes.Buffer
	cmd := exec.Command(f.opts.Binary, args...)
	cmd.Env = append(os.Environ(), "IRONRING_SOCKET="+p.socket)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &b, &b
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return err.Error(), -1
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// says runs the program and checks its exit code and what it prints.
func (f *fixture) says(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	out, got := f.ironring(args...)
	if got != code {
		t.Errorf("ironring %s: exit code %d, not %d:\n%s", strings.Join(args, " "), got, code, out)
		return
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("ironring %s: %q is not in:\n%s", strings.Join(args, " "), w, out)
		}
	}
}
