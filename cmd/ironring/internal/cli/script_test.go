package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
)

var update = flag.Bool("update", false, "rewrite golden files")

// testNow is the clock of the program and of the fake cluster.
var testNow = time.UnixMilli(1_800_000_000_000).UTC()

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ironring": func() {
			f := System()
			f.Now = func() time.Time { return testNow.Add(90 * time.Second) }
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			code := Main(ctx, f, os.Args[1:])
			stop()
			os.Exit(code)
		},
	})
}

// fakeKey finds the cluster of a script.
type fakeKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			fake := clienttest.New()
			env.Values[fakeKey{}] = fake
			// Below $WORK the path could be too long for a socket.
			dir, err := os.MkdirTemp("", "ironring")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "s")
			lis, err := net.Listen("unix", path)
			if err != nil {
				return err
			}
			env.Defer(fake.Peer("p1").Serve(lis))
			env.Setenv("IRONRING_SERVER", "unix:"+path)
			env.Setenv("SOCKET", path)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"state":  cmdState,
			"play":   cmdPlay,
			"status": cmdStatus,
			"live":   cmdLive,
			"log":    cmdLog,
			"code":   cmdCode,
		},
	})
}

func fakeOf(ts *testscript.TestScript) *clienttest.Cluster {
	return ts.Value(fakeKey{}).(*clienttest.Cluster)
}

// cmdState puts a node into a state: state NODE STATE.
func cmdState(ts *testscript.TestScript, _ bool, args []string) {
	s, ok := api.State_value[args[1]]
	if !ok {
		ts.Fatalf("no state %s", args[1])
	}
	fakeOf(ts).Change(args[0], func(n *api.Node, f *api.Flow) {
		n.State = api.State(s)
		f.Id = ""
		if n.State == api.State_AVAILABLE {
			n.Erasure = &api.Erasure{Level: api.Erasure_METADATA}
		}
	})
}

// cmdPlay sets what happens to a node while it is watched: play NODE STEP...,
// where a step is start/CURSOR/STATE, percent/P/DONE/TOTAL/MS, done/STATE, or
// failed/STATE/TEXT.
func cmdPlay(ts *testscript.TestScript, _ bool, args []string) {
	var steps []clienttest.Step
	number := func(s string) uint64 {
		v, err := strconv.ParseUint(s, 10, 32)
		ts.Check(err)
		return v
	}
	for _, a := range args[1:] {
		p := strings.Split(a, "/")
		steps = append(steps, func(n *api.Node, f *api.Flow) *api.Progress {
			switch p[0] {
			case "start":
				f.Cursor, f.Started, f.Attempt = uint32(number(p[1])), true, f.Attempt+1
				n.State = api.State(api.State_value[p[2]])
			case "percent":
				return &api.Progress{CmdId: "c", Step: "write_image", Percent: float64(number(p[1])),
					DoneBytes: number(p[2]), TotalBytes: number(p[3]), AtMs: testNow.UnixMilli() + int64(number(p[4]))}
			case "done":
				n.State, f.Status, f.Cursor = api.State(api.State_value[p[1]]), api.FlowStatus_FLOW_DONE, uint32(len(f.Steps))
				n.PowerState = api.PowerState_POWER_ON
			case "failed":
				n.State, f.Status, n.LastError = api.State(api.State_value[p[1]]), api.FlowStatus_FLOW_FAILED, p[2]
			}
			return nil
		})
	}
	// The watch of the command before may not have noticed that its client is
	// gone, and would play what is not for it.
	for deadline := time.Now().Add(time.Minute); fakeOf(ts).Watchers() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			ts.Fatalf("a watch goes on")
		}
	}
	fakeOf(ts).Script(args[0], steps...)
}

// cmdStatus sets the health of the cluster: status HEALTH.
func cmdStatus(ts *testscript.TestScript, _ bool, args []string) {
	fakeOf(ts).SetStatus(&api.ClusterStatusReply{
		Health: api.ClusterStatusReply_Health(api.ClusterStatusReply_Health_value[args[0]]), ClusterId: "c1", Leader: "p1", Term: 3, Index: 1234,
		AnsweredBy: "p2", NextFailure: "the loss of one more voter", Problems: []string{"p3 does not answer"}, Nodes: 3, Unassigned: 1,
		NodesByState: map[string]uint64{"active": 2, "enroll": 1},
		Peers: []*api.PeerStatus{
			{Member: &api.Member{Id: "p1", Zone: "z1", Version: "v1", ApiAddress: "10.0.0.1:7482", Phase: api.Member_READY}, Voter: true, Leader: true, Alive: true,
				Nodes: 2, Locks: 1, RingShare: 0.5, Lease: "live", AppliedIndex: 1234},
			{Member: &api.Member{Id: "p3", Zone: "z2", Version: "v1", ApiAddress: "10.0.0.3:7482", Phase: api.Member_READY}, Voter: true, RingShare: 0.5, Lease: "fenced"},
		},
	})
}

// cmdLive sets what `explain` says besides the node.
func cmdLive(ts *testscript.TestScript, _ bool, _ []string) {
	ms := testNow.UnixMilli()
	fakeOf(ts).SetExplain(&api.ExplainReply{
		Summary: "deploy waits for the agent", WaitsFor: "the agent writing the image", SinceMs: ms, DeadlineInMs: 1_200_000,
		Lock:  &api.Lock{Conductor: "p2", Token: 17, Purpose: "deploy", Class: "waiting", AcquiredMs: ms},
		Lease: &api.Lease{Id: "l1", Conductor: "p2", RenewSeq: 99},
		Live: &api.LiveFacts{BmcContactMs: ms + 80_000, DhcpContactMs: ms + 10_000, BootContactMs: ms + 20_000, BootStage: "initramfs",
			AgentContactMs: ms + 89_500, AgentPeer: "p1", Progress: &api.Progress{Step: "write_image", Percent: 42, AtMs: ms + 89_000}},
		LiveFrom: "p2", Advice: "nothing to do", Notes: []string{"metadata only, data remains"},
	})
}

// cmdLog adds a journal event: log KIND STAGE MS TEXT.
func cmdLog(ts *testscript.TestScript, _ bool, args []string) {
	ms, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	fakeOf(ts).Log(&api.JournalEvent{Peer: "p1", Seq: uint64(ms), AtMs: testNow.UnixMilli() + ms, Kind: args[0], Stage: args[1],
		Text: args[3], Mac: "52:54:00:00:00:01", BootNonce: "n"})
}

// cmdCode runs a command that must end with an exit code: code N COMMAND...
func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var code *exec.ExitError
		if !errors.As(err, &code) {
			ts.Fatalf("%v", err)
		}
		got = code.ExitCode()
	}
	if want := args[0]; fmt.Sprint(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}
