package cluster

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

func TestStatusSaysWhatIsWrong(t *testing.T) {
	peer := func(id string, change func(*api.PeerStatus)) *api.PeerStatus {
		p := &api.PeerStatus{Member: &api.Member{Id: id, Phase: api.Member_READY}, Voter: true, Alive: true, AppliedIndex: 10, Lease: "live"}
		if change != nil {
			change(p)
		}
		return p
	}
	for name, c := range map[string]struct {
		change func(*api.PeerStatus)
		want   string // a problem has this, "" for none
	}{
		"well":     {nil, ""},
		"slow":     {func(p *api.PeerStatus) { p.LagMs, p.Lag = 12_000, 40 }, "peer p2 is 12s and 40 entries behind"},
		"far":      {func(p *api.PeerStatus) { p.Lag = 3000 }, "3000 entries behind"},
		"a moment": {func(p *api.PeerStatus) { p.LagMs, p.Lag = 1_000, 200 }, ""},
		"full":     {func(p *api.PeerStatus) { p.Disk = &api.DiskStatus{Path: "/var/x", Full: true, TotalBytes: 1 << 30} }, "p2: the disk that holds /var/x is full (0 B free): free space"},
		"low": {func(p *api.PeerStatus) {
			p.Disk = &api.DiskStatus{Path: "/var/x", FreeBytes: 10 << 20, TotalBytes: 1 << 30}
		}, "has 10 MiB free"},
		"roomy":     {func(p *api.PeerStatus) { p.Disk = &api.DiskStatus{Path: "/x", FreeBytes: 1 << 30, TotalBytes: 1 << 31} }, ""},
		"promoting": {func(p *api.PeerStatus) { p.Voter = false }, "1 of 2 voters so far: p2 gets its vote in a moment"},
		"catching":  {func(p *api.PeerStatus) { p.Voter, p.Lag = false, 900 }, "p2 is catching up, 900 entries behind"},
		"old keys":  {func(p *api.PeerStatus) { p.KeysGeneration = 1 }, "keys of generation 1, not of 2"},
	} {
		s := &api.ClusterStatusReply{Leader: "p1", AnsweredBy: "p1", Keys: &api.KeysStatus{Generation: 2},
			Peers: []*api.PeerStatus{peer("p1", func(p *api.PeerStatus) { p.Leader = true }), peer("p2", c.change)}}
		got := strings.Join(problems(s, 3), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	one := &api.ClusterStatusReply{Peers: []*api.PeerStatus{peer("p1", nil)}}
	if got := nextFailure(one); got != "1 of 1 voters answer, but none leads" {
		t.Errorf("without a leader: %q", got)
	}
	for k, want := range map[*api.KeysStatus]string{
		{Due: "member p3 is gone"}:                             "p3 is gone",
		{DataPrimary: "k2", DataKeys: []string{"k1", "k2"}}:    "under data key k2; 1 older",
		{DataPrimary: "k2", DataKeys: []string{"k2"}, Due: ""}: "",
	} {
		if got := strings.Join(notes(&api.ClusterStatusReply{Keys: k}), ""); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("notes of %v: %q", k, got)
		}
	}
}

// A voter that cannot store counts for nothing, whatever its heartbeats say.
func TestStatusCountsWhoCanStore(t *testing.T) {
	full := &api.DiskStatus{Path: "/x", Full: true}
	peer := func(id string, change func(*api.PeerStatus)) *api.PeerStatus {
		p := &api.PeerStatus{Member: &api.Member{Id: id}, Voter: true, Alive: true, Leader: id == "p1"}
		if change != nil {
			change(p)
		}
		return p
	}
	for name, c := range map[string]struct {
		p2, p3       func(*api.PeerStatus)
		next         string
		lost, proven bool
	}{
		"well":       {nil, nil, "the loss of any 2 of p1, p2, p3", false, false},
		"one full":   {func(p *api.PeerStatus) { p.Disk = full }, nil, "the loss of any one of p1, p3", false, false},
		"one behind": {func(p *api.PeerStatus) { p.LagMs = 9_000 }, nil, "the loss of any one of p1, p3", false, false},
		"one far":    {func(p *api.PeerStatus) { p.Lag = 5_000 }, nil, "the loss of any one of p1, p3", false, false},
		"a moment":   {func(p *api.PeerStatus) { p.Lag, p.LagMs = 100, 900 }, nil, "the loss of any 2 of p1, p2, p3", false, false},
		"full, silent": {func(p *api.PeerStatus) { p.Disk = full }, func(p *api.PeerStatus) { p.Alive = false },
			"the quorum is lost: 1 of 3 voters can store changes, not p2 (its disk is full), p3", true, true},
		"full, behind": {func(p *api.PeerStatus) { p.Disk = full }, func(p *api.PeerStatus) { p.LagMs = 9_000 },
			"the quorum is lost: 1 of 3 voters can store changes, not p2 (its disk is full), p3 (too far behind)", true, true},
		"both silent": {func(p *api.PeerStatus) { p.Alive = false }, func(p *api.PeerStatus) { p.Alive = false },
			"the quorum is lost: 1 of 3 voters can store changes, not p2, p3", true, false},
		"no voter": {func(p *api.PeerStatus) { p.Voter, p.Disk = false, full }, nil, "the loss of any one of p1, p3", false, false},
	} {
		s := &api.ClusterStatusReply{Leader: "p1", AnsweredBy: "p1", Peers: []*api.PeerStatus{peer("p1", nil), peer("p2", c.p2), peer("p3", c.p3)}}
		if got := nextFailure(s); got != c.next {
			t.Errorf("%s: next %q", name, got)
		}
		if got := !hasQuorum(s); got != c.lost {
			t.Errorf("%s: lost %v", name, got)
		}
		if got := provenLoss(s); got != c.proven {
			t.Errorf("%s: proven %v", name, got)
		}
	}
}

// What comes from the network before anybody has proven anything is bounded.
func FuzzFormMessage(f *testing.F) {
	var good bytes.Buffer
	if err := writeFormMessage(&good, formRequest{Kind: "hello", Params: formParams{ClusterID: "c", Join: []string{"a:1"}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req formRequest
		if err := readFormMessage(bytes.NewReader(raw), &req); err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeFormMessage(&out, req); err != nil {
			t.Fatal(err)
		}
		var again formRequest
		if err := readFormMessage(&out, &again); err != nil && out.Len() <= maxFormMessage {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}
