package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
)

// desk is a person at a terminal, in front of a cluster in memory.
type desk struct {
	*testing.T
	fake   *clienttest.Cluster
	peer   *clienttest.Peer
	socket string
	stdin  string
	env    map[string]string
	asked  []string // questions, in order
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{T: t, fake: clienttest.New(), env: map[string]string{}}
	dir, err := os.MkdirTemp("", "ironring") // t.TempDir could be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d.socket = filepath.Join(dir, "s")
	lis, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	d.peer = d.fake.Peer("p1")
	t.Cleanup(d.peer.Serve(lis))
	return d
}

// answering is a person who gives this answer; without one nobody is there.
type answering *string

func says(s string) answering { return &s }

func (d *desk) run(answer answering, args ...string) (code int, out, err string) {
	d.Helper()
	f, stdout, stderr := testFactory(d.stdin, d.env)
	if answer != nil {
		f.Asked = func(q string) string {
			d.asked = append(d.asked, q)
			return *answer
		}
	}
	code = Main(context.Background(), f, append(args, "--socket", d.socket))
	return code, stdout.String(), stderr.String()
}

// does runs a command that must end with a code and say something, on either
// stream.
func (d *desk) does(code int, want string, args ...string) {
	d.Helper()
	d.doesAsked(nil, code, want, args...)
}

func (d *desk) doesAsked(answer answering, code int, want string, args ...string) {
	d.Helper()
	got, out, err := d.run(answer, args...)
	if got != code || !strings.Contains(out+err, want) {
		d.Errorf("ironring %s: exit code %d, want %d and %q:\n%s%s", strings.Join(args, " "), got, code, want, out, err)
	}
}

// nodes makes nodes n01, n02, ... in a state.
func (d *desk) nodes(n int, state api.State) {
	d.Helper()
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("n%02d", i)
		d.does(0, "enrolled", "node", "create", "--name", name, "--driver", "fake", "--property", fmt.Sprintf("rack=r%d", i%3), "--property", fmt.Sprintf("memory_mb:=%d", i*1024))
		d.fake.Change(name, func(n *api.Node, _ *api.Flow) { n.State = state })
	}
}

// done are the writes since the nodes were made.
func (d *desk) done(verb string) []string {
	var out []string
	for _, w := range d.fake.Done() {
		if strings.HasPrefix(w, verb+" ") {
			out = append(out, w)
		}
	}
	return out
}

func TestFleetQuestions(t *testing.T) {
	all := "--where=name.startsWith('n')"
	for _, c := range []struct {
		name   string
		nodes  int
		answer answering
		args   []string
		code   int
		want   string
		done   int // undeploys
	}{
		{"one, nobody there", 1, nil, []string{"n01"}, 3, "nobody can be asked", 0},
		{"one, right name", 1, says("n01"), []string{"n01"}, 0, "accepted", 1},
		{"one, wrong name", 1, says("n02"), []string{"n01"}, 3, `"n02" is not n01; nothing was done`, 0},
		{"one, yes is no name", 1, says("yes"), []string{"n01"}, 3, "nothing was done", 0},
		{"one by its UUID", 1, says("n01"), []string{"00000000-0000-7000-8000-000000000001"}, 0, "accepted", 1},
		{"one, --yes", 1, nil, []string{"n01", "--yes"}, 0, "accepted", 1},
		{"one of where", 3, says("n02"), []string{"--where", `name == "n02"`}, 0, "1 done", 1},
		{"some, nobody there", 3, nil, []string{all}, 3, "undeploy of 3 nodes: n01 (active), n02 (active), n03 (active). Lost for good: what runs", 0},
		{"some, right number", 3, says("3"), []string{all}, 0, "3 done", 3},
		{"some, wrong number", 3, says("2"), []string{all}, 3, "nothing was done", 0},
		{"some, --yes", 3, nil, []string{all, "--yes"}, 0, "3 done", 3},
		{"many, --yes is not enough", 11, nil, []string{all, "--yes"}, 3, "give --confirm-count 11", 0},
		{"many, --yes at a terminal", 11, says("11"), []string{all, "--yes"}, 0, "11 done", 11},
		{"many, wrong number", 11, says("10"), []string{all, "--yes"}, 3, "nothing was done", 0},
		{"many, nobody there", 11, nil, []string{all}, 3, "give --confirm-count 11 and --yes", 0},
		{"many, count given", 11, nil, []string{all, "--yes", "--confirm-count", "11"}, 0, "11 done", 11},
		{"many, count wrong", 11, nil, []string{all, "--yes", "--confirm-count", "12"}, 3, "--confirm-count says 12 nodes, but 11 are meant", 0},
		{"few, count wrong", 2, nil, []string{all, "--yes", "--confirm-count", "3"}, 3, "but 2 are meant", 0},
		{"count without --yes", 11, nil, []string{all, "--confirm-count", "11"}, 3, "give --yes", 0},
		{"twice the same", 2, nil, []string{"n01", "00000000-0000-7000-8000-000000000001", "--yes"}, 3, "are the same node", 0},
		{"one is not there", 2, nil, []string{"n01", "n77", "--yes"}, 4, `no node "n77"; nothing was done`, 0},
		{"none", 2, nil, nil, 3, "needs NODE or --where", 0},
		{"both", 2, nil, []string{"n01", all}, 3, "give nodes or --where, not both", 0},
		{"no match", 2, nil, []string{"--where", `name == "x"`, "--yes"}, 4, "no node of 2 matches", 0},
		{"dry run", 3, nil, []string{all, "--dry-run"}, 0, "3 would be done", 0},
		{"parallel", 1, nil, []string{"n01", "--yes", "--parallel", "0"}, 3, "--parallel 0: must be 1 to 1000", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.nodes(c.nodes, api.State_ACTIVE)
			d.doesAsked(c.answer, c.code, c.want, append([]string{"node", "undeploy"}, c.args...)...)
			if got := d.done("delete"); len(got) != c.done {
				t.Errorf("done: %q, want %d", got, c.done)
			}
			if c.answer == nil && len(d.asked) > 0 {
				t.Errorf("asked %q although nobody is there", d.asked)
			}
		})
	}
}

// Which commands ask, and for what.
func TestWhatAsks(t *testing.T) {
	for _, c := range []struct {
		state api.State
		args  []string
		asks  bool
	}{
		{api.State_ENROLL, []string{"manage"}, false},
		{api.State_MANAGEABLE, []string{"inspect"}, false},
		{api.State_MANAGEABLE, []string{"provide"}, true},
		{api.State_MANAGEABLE, []string{"provide", "--wipe-existing"}, true},
		{api.State_AVAILABLE, []string{"deploy", "--image", "http://i/x", "--checksum", "sha256:00"}, false},
		{api.State_AVAILABLE, []string{"deploy", "--image", "http://i/x", "--checksum", "sha256:00", "--wipe-existing"}, true},
		{api.State_ACTIVE, []string{"rebuild", "--image", "http://i/x", "--checksum", "sha256:00"}, true},
		{api.State_ACTIVE, []string{"undeploy"}, true},
		{api.State_ENROLL, []string{"delete"}, true},
		{api.State_ACTIVE, []string{"protect"}, false},
		{api.State_ACTIVE, []string{"unprotect"}, false},
	} {
		d := newDesk(t)
		d.nodes(1, c.state)
		before := len(d.fake.Done())
		d.doesAsked(says("n01"), 0, "n01", append([]string{"node", c.args[0], "n01"}, c.args[1:]...)...)
		if (len(d.asked) > 0) != c.asks {
			t.Errorf("%s asked %q", c.args[0], d.asked)
		}
		if got := len(d.fake.Done()) - before; got != 1 {
			t.Errorf("%s: %d writes", c.args[0], got)
		}
	}
}

// A failure of some is told for each, stops the rest, and is exit code 1.
func TestFleetFailures(t *testing.T) {
	d := newDesk(t)
	d.nodes(9, api.State_AVAILABLE)
	for _, n := range []string{"n02", "n04"} {
		d.fake.Change(n, func(n *api.Node, _ *api.Flow) { n.State = api.State_ACTIVE })
	}
	deploy := []string{"node", "deploy", "--where", "true", "--image", "http://i/x", "--checksum", "sha256:00", "--parallel", "1", "-o", "json"}
	read := func(out string) map[string][]string {
		var got struct{ Results []outcome }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		by := map[string][]string{}
		for _, o := range got.Results {
			by[o.Result] = append(by[o.Result], o.Node)
		}
		return by
	}
	code, out, _ := d.run(nil, append(deploy, "--dry-run")...)
	if by := read(out); code != 1 || !slices.Equal(by["would be refused"], []string{"n02", "n04"}) || len(by["would be done"]) != 7 || len(d.done("deploy")) != 0 {
		t.Errorf("dry run: exit code %d, %v", code, by)
	}
	code, out, _ = d.run(nil, append(deploy, "--max-failures", "2")...)
	by := read(out)
	if code != 1 || !slices.Equal(by["done"], []string{"n01", "n03"}) || !slices.Equal(by["failed"], []string{"n02", "n04"}) || len(by["not begun"]) != 5 {
		t.Errorf("exit code %d, %v", code, by)
	}
	code, out, _ = d.run(nil, append(deploy, "--max-failures", "0")...)
	if by := read(out); code != 1 || len(by["not begun"]) != 0 || len(by["done"]) != 5 || len(by["failed"]) != 4 {
		t.Errorf("exit code %d, %v", code, by)
	}
	code, out, stderr := d.run(nil, "node", "power", "n01", "n03", "reboot")
	if code != 0 || !strings.Contains(out, "n01   done    accepted") || !strings.Contains(stderr, "2 done") {
		t.Errorf("exit code %d:\n%s%s", code, out, stderr)
	}
}

// What an expression meant is looked at again before each node.
func TestFleetLooksAgain(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ACTIVE)
	d.peer.Before(func(_ context.Context, method string, _ any) error {
		if method == "GetNode" {
			d.fake.Change("n02", func(n *api.Node, _ *api.Flow) { n.Extra = []byte(`{"keep":true}`) })
		}
		return nil
	})
	code, out, _ := d.run(says("2"), "node", "undeploy", "--where", "!has(extra.keep)")
	if code != 1 || !strings.Contains(out, "n02   failed  has changed meanwhile") || len(d.done("delete")) != 1 {
		t.Errorf("exit code %d, %q:\n%s", code, d.done("delete"), out)
	}
}

// What a person agreed to is what is acted on: a node that changed between the
// question and the act is refused, said so in the table, and the others are
// done. The reading before the act is over all that is committed.
func TestFleetRefusesWhatChanged(t *testing.T) {
	const image = "--image=http://i/x"
	changes := map[string]func(*api.Node, *api.Flow){
		"its state was": func(n *api.Node, _ *api.Flow) { n.State = api.State_DEPLOY_FAILED },
		"protected":     func(n *api.Node, _ *api.Flow) { n.Protected = true },
		"driver_info":   func(n *api.Node, _ *api.Flow) { n.DriverInfo = []byte(`{"fake_address":"another"}`) },
	}
	for _, c := range []struct {
		state api.State
		verb  string // in Done
		args  []string
	}{
		{api.State_ACTIVE, "delete", []string{"undeploy"}},
		{api.State_ACTIVE, "rebuild", []string{"rebuild", image, "--checksum=sha256:00"}},
		{api.State_AVAILABLE, "deploy", []string{"deploy", image, "--checksum=sha256:00"}},
		{api.State_ENROLL, "delete", []string{"delete"}},
		{api.State_ACTIVE, "power", []string{"power", "off"}},
		{api.State_ACTIVE, "hardware", []string{"bmc", "nmi"}},
		{api.State_ACTIVE, "update", []string{"protect"}},
	} {
		for what, change := range changes {
			// After the list, and after the last reading before the act.
			for _, after := range []string{"ListNodes", "GetNode"} {
				d := newDesk(t)
				d.nodes(2, c.state)
				changed := false
				d.peer.After(func(method string) error {
					if method == after && !changed {
						changed = true
						d.fake.Change("n02", change)
					}
					return nil
				})
				before := len(d.done(c.verb))
				args := append(append([]string{"node"}, c.args...), "--where", "true", "--parallel", "1", "--yes")
				code, out, stderr := d.run(says("2"), args...)
				if code != 1 || !strings.Contains(out, "n02   failed  has changed meanwhile: "+what) || len(d.done(c.verb))-before != 1 {
					t.Errorf("%q, %s changed after %s: exit code %d, %q:\n%s%s", c.args, what, after, code, d.fake.Done(), out, stderr)
				}
				for _, req := range d.peer.Requests() {
					if get, ok := req.(*api.GetNodeRequest); ok && !get.GetRead().GetLinearizable() {
						t.Errorf("%q: read what may be old: %v", c.args, get)
					}
				}
			}
		}
	}
}

// The same for a single node that was asked about.
func TestOneRefusesWhatChanged(t *testing.T) {
	d := newDesk(t)
	d.nodes(1, api.State_ACTIVE)
	gets := 0
	d.peer.After(func(method string) error {
		if method == "GetNode" {
			if gets++; gets == 2 { // the first is for the question
				d.fake.Change("n01", func(n *api.Node, _ *api.Flow) { n.StateSinceMs++ })
			}
		}
		return nil
	})
	d.doesAsked(says("n01"), 7, "has changed meanwhile: its state was active, is active", "node", "undeploy", "n01")
	if got := d.done("delete"); len(got) > 0 {
		t.Errorf("done: %q", got)
	}
}

// A change that only is an observation of the machine stops nothing.
func TestFleetGoesOnAfterAnObservation(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ACTIVE)
	observed := 0
	d.peer.After(func(method string) error {
		if method == "GetNode" && observed < 2 {
			observed++
			d.fake.Change("n02", func(n *api.Node, _ *api.Flow) { n.PowerState = api.PowerState_POWER_ON })
		}
		return nil
	})
	d.does(0, "2 done", "node", "undeploy", "--where", "true", "--yes")
}

func TestProtected(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ACTIVE)
	d.does(0, "node n01 is protected", "node", "protect", "n01")
	d.does(10, "the node is protected", "node", "undeploy", "n01", "--yes")
	d.does(10, "the node is protected", "node", "rebuild", "n01", "--yes", "--image", "http://i/x", "--checksum", "sha256:00")
	d.does(10, "it is protected", "node", "delete", "n01", "--yes")
	d.does(1, "would be refused", "node", "undeploy", "--where", "true", "--dry-run")
	d.does(1, "n01   failed  node n01: delete: the node is protected", "node", "undeploy", "n01", "n02", "--yes")
	d.does(0, "not protected any more", "node", "unprotect", "n01")
	d.does(0, "accepted", "node", "undeploy", "n01", "--yes")
}

func TestWhere(t *testing.T) {
	d := newDesk(t)
	d.nodes(6, api.State_AVAILABLE)
	d.fake.Change("n05", func(n *api.Node, _ *api.Flow) {
		n.State, n.Maintenance, n.PowerState, n.Properties = api.State_DEPLOY_WAIT, true, api.PowerState_POWER_ON, []byte(`{"memory_mb":1.5,"tags":["a","b"]}`)
	})
	for expr, want := range map[string]string{
		`true`:                                   "n01 n02 n03 n04 n05 n06",
		`state == "wait call-back"`:              "n05",
		`state == "available" && name > "n03"`:   "n04 n06",
		`properties.rack == "r1"`:                "n01 n04",
		`properties.rack != "r1"`:                "n02 n03 n06", // n05 has none
		`!has(properties.rack)`:                  "n05",
		`properties.memory_mb >= 4096`:           "n04 n06",
		`properties.memory_mb < 1.6`:             "n05",
		`maintenance || properties.rack == "r2"`: "n02 n05",
		`power == "on"`:                          "n05",
		`"b" in properties.tags`:                 "n05",
		`name.matches("^n0[12]$")`:               "n01 n02",
		`driver == "fake" && owner == "p2"`:      "",
		`extra.size() == 0 && group == ""`:       "n01 n02 n03 n04 n05 n06",
	} {
		code, out, err := d.run(nil, "node", "list", "-o", "json", "--where", expr)
		var rep struct{ Nodes []struct{ Name string } }
		if code != 0 || json.Unmarshal([]byte(out), &rep) != nil {
			t.Errorf("%s: exit code %d: %s", expr, code, err)
			continue
		}
		var names []string
		for _, n := range rep.Nodes {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s means %q, want %q", expr, got, want)
		}
	}
	for expr, want := range map[string]string{
		`state = "x"`:                          "--where: at character 7",
		`stat == "x"`:                          "undeclared reference to 'stat'",
		`name`:                                 "gives a value of type string, not true or false",
		`properties.rack`:                      "not true or false",
		`name == 3`:                            "no matching overload",
		`properties.memory_mb.startsWith("x")`: "of node n01",
		strings.Repeat("x", 5000):              "has 5000 characters",
		`[1,2,3,4,5,6,7,8,9,10].all(a,[1,2,3,4,5,6,7,8,9,10].all(b,[1,2,3,4,5,6,7,8,9,10].all(c,[1,2,3,4,5,6,7,8,9,10].all(d,[1,2,3,4,5,6,7,8,9,10].all(e,a+b+c+d+e>0)))))`: "cost",
	} {
		d.does(3, want, "node", "list", "--where", expr)
		d.does(3, "--where", "node", "undeploy", "--yes", "--where", expr)
	}
	if got := d.done("delete"); len(got) != 0 {
		t.Errorf("done: %q", got)
	}
}

// Any expression is an answer or an error, in bounded time.
func FuzzWhere(f *testing.F) {
	for _, s := range []string{`true`, `state == "x"`, `properties.a.b[1] > 2`, `[1].map(x, x)`, `name.matches("(a+)+$")`, `'\u00e4'`, `{`, `has(extra.a)`} {
		f.Add(s)
	}
	n := &api.Node{Name: "n1", State: api.State_ACTIVE, Properties: []byte(`{"a":{"b":[1,2.5,"x",null,true]}}`)}
	f.Fuzz(func(t *testing.T, expr string) {
		w, err := parseWhere(expr)
		if err != nil {
			if bytes.ContainsAny([]byte(err.Error()), "\n\x1b") {
				t.Errorf("%q: control characters in %q", expr, err)
			}
			return
		}
		_, _ = w.matches(t.Context(), n)
	})
}
