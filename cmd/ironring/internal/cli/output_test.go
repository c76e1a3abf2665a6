package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

func TestJSON(t *testing.T) {
	f, out, _ := testFactory("", nil)
	n := &api.Node{Id: "1", State: api.State_DEPLOY_WAIT, Index: 1 << 60, DriverInfo: []byte(`{"args":"eA==","port":623}`),
		Agent: &api.AgentSession{KeyDigest: []byte{1, 2}}, Properties: []byte("not json")}
	in := &api.ListNodesReply{Nodes: []*api.Node{n}, Index: 7}
	if err := f.printJSON(in); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"index": 1152921504606846976`, `"state": "wait call-back"`, `"target_state": null`, `"args": "eA=="`, `"port": 623`,
		`"key_digest": "AQI="`, `"properties": "bm90IGpzb24="`, `"extra": {}`, `"stale": false`, `"lock_`,
	} {
		if got := strings.Contains(out.String(), want); got == (want == `"lock_`) {
			t.Errorf("%s: %v in\n%s", want, got, out)
		}
	}
	// What has no documents is read back as it was.
	out.Reset()
	status := &api.ClusterStatusReply{Term: 1 << 62, NodesByState: map[string]uint64{"active": 3},
		Peers: []*api.PeerStatus{{Member: &api.Member{Id: "p1", Drivers: []string{"ipmi"}, JoinedMs: 5}, RingShare: 0.25}}}
	if err := f.printJSON(status); err != nil {
		t.Fatal(err)
	}
	var back api.ClusterStatusReply
	if err := protojson.Unmarshal(out.Bytes(), &back); err != nil || !proto.Equal(&back, status) {
		t.Errorf("%v: read back\n%v\nwant\n%v", err, &back, status)
	}
}

func TestTable(t *testing.T) {
	tb := newTable("A", "LONGER", "C")
	tb.add("ä", cell{"x", red}, "")
	tb.add("abc\x1b[31m\n", 7, "end")
	var plain, colored bytes.Buffer
	if err := tb.write(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := tb.write(&colored, true); err != nil {
		t.Fatal(err)
	}
	want := "A          LONGER  C\nä          x       -\nabc [31m   7       end\n"
	if plain.String() != want {
		t.Errorf("got\n%q\nwant\n%q", plain.String(), want)
	}
	if got := strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(colored.String()); got != want {
		t.Errorf("colors move columns:\n%s", got)
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 120 * time.Millisecond: "120ms", 59 * time.Second: "59s", 61 * time.Second: "1m01s",
		3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	f, _, _ := testFactory("", nil)
	for d, want := range map[time.Duration]string{
		time.Hour - 100*time.Millisecond: "1h", time.Hour: "1h", 510 * time.Second: "8m30s", 59 * time.Second: "59s", -time.Second: "0s",
		90 * 24 * time.Hour: "2160h", 10 * time.Minute: "10m", 70 * time.Minute: "1h10m",
	} {
		if got := f.left(testNow.Add(d).UnixMilli()); got != want {
			t.Errorf("left(%v) = %q, want %q", d, got, want)
		}
	}
	for ms, want := range map[int64]string{
		0: "", testNow.UnixMilli(): "just now", testNow.UnixMilli() + 2000: "just now",
		testNow.UnixMilli() - 5000: "5s ago", testNow.UnixMilli() + 60_000: "in 1m00s",
	} {
		if got := f.ago(ms); got != want {
			t.Errorf("ago(%d) = %q, want %q", ms, got, want)
		}
	}
}

func TestProgressOnTerminal(t *testing.T) {
	f, _, _ := testFactory("", nil)
	var w bytes.Buffer
	p := newProgress(f, &w)
	p.live = true
	event := func(pr *api.Progress, n *api.Node) {
		p.event(&api.NodeEvent{Progress: pr, Node: n})
	}
	event(&api.Progress{CmdId: "a", Percent: 1, DoneBytes: 1 << 20, TotalBytes: 100 << 20, AtMs: 1000}, nil)
	event(&api.Progress{CmdId: "a", Percent: 3, DoneBytes: 3 << 20, TotalBytes: 100 << 20, AtMs: 2000}, nil)
	event(nil, &api.Node{State: api.State_ACTIVE})
	want := "\r\x1b[K            1.0 %  1.0 MiB of 100.0 MiB" +
		"\r\x1b[K            3.0 %  3.0 MiB of 100.0 MiB  2.0 MiB/s\n08:00:00  active\n"
	if w.String() != want {
		t.Errorf("got\n%q\nwant\n%q", w.String(), want)
	}
}
