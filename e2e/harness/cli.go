package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ironring/ironring/node"
)

// The parts of the program's JSON that the cases look at.

// Status is what `cluster status` prints.
type Status struct {
	Health   string   `json:"health"`
	Leader   string   `json:"leader"`
	Problems []string `json:"problems"`
	Peers    []struct {
		Member struct {
			ID string `json:"id"`
		} `json:"member"`
		Voter bool   `json:"voter"`
		Lease string `json:"lease"`
	} `json:"peers"`
}

// live tells whether a member holds a lease.
func (s *Status) live(id string) bool {
	for _, p := range s.Peers {
		if p.Member.ID == id {
			return p.Lease == "live"
		}
	}
	return false
}

// Node is what `node show` prints of a node.
type Node struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	State      string `json:"state"`
	LastError  string `json:"last_error"`
	Assigned   string `json:"assigned"`
	PowerState string `json:"power_state"`
}

// UnmarshalJSON reads what the program prints. State becomes the name of an
// api.State: the tests compare with those.
func (n *Node) UnmarshalJSON(data []byte) error {
	type plain Node
	if err := json.Unmarshal(data, (*plain)(n)); err != nil {
		return err
	}
	if s, err := node.ParseState(n.State); err == nil {
		n.State = s.String()
	}
	return nil
}

// Flow is the work on a node.
type Flow struct {
	Kind      string `json:"kind"`
	Status    string `json:"status"`
	Error     string `json:"error"`
	Cursor    int    `json:"cursor"`
	Takeovers int    `json:"takeovers"`
	Steps     []Step `json:"steps"`
}

// Step is one step of a flow.
type Step struct {
	Interface string          `json:"interface"`
	Name      string          `json:"name"`
	Starts    int             `json:"starts"`
	Error     string          `json:"error"`
	Result    json.RawMessage `json:"result"`
}

// Find is the step with that name; nil if the flow has none.
func (f *Flow) Find(name string) *Step {
	for i := range f.Steps {
		if f.Steps[i].Interface+"."+f.Steps[i].Name == name {
			return &f.Steps[i]
		}
	}
	return nil
}

// Explanation is what `node explain` prints.
type Explanation struct {
	Node Node `json:"node"`
	Flow Flow `json:"flow"`
	Lock *struct {
		Conductor string `json:"conductor"`
	} `json:"lock"`
	WaitsFor string `json:"waits_for"`
	Summary  string `json:"summary"`
	Live     struct {
		BootStage string `json:"boot_stage"`
		AgentPeer string `json:"agent_peer"`
	} `json:"live"`
}

// Holder is the peer that works on the node now, "" for none.
func (e *Explanation) Holder() string {
	if e.Lock == nil {
		return ""
	}
	return e.Lock.Conductor
}

// CLI runs the program against this peer and decodes the JSON that it prints
// into out, if that is given.
func (p *Peer) CLI(ctx context.Context, out any, args ...string) error {
	text, err := p.run(ctx, append([]string{"-o", "json"}, args...)...)
	// `cluster status` says by its exit code how the cluster is, and prints all the same.
	if err != nil && (out == nil || !json.Valid([]byte(text))) {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		return fmt.Errorf("ironring %s: %w in %q", strings.Join(args, " "), err, text)
	}
	return nil
}

func (p *Peer) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.lab.Limit(60*time.Second))
	defer cancel()
	return p.lab.Output(ctx, Cmd{
		Name: "ironring " + strings.Join(args, " "), NS: p.lab.NS(p.ID),
		Args: append([]string{p.lab.Binary(), "--socket", p.socket}, args...),
	})
}

// Event is one thing that a peer saw of a node.
type Event struct {
	Peer  string `json:"peer"`
	At    int64  `json:"at_ms"`
	Kind  string `json:"kind"`
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// Timeline is what the peers saw of a node's last boot.
func (c *Cluster) Timeline(ctx context.Context, node string) ([]Event, error) {
	var text string
	err := errors.New("no peer lives")
	for _, p := range c.Peers {
		if p.Alive() {
			text, err = p.run(ctx, "-o", "json", "node", "timeline", node)
			break
		}
	}
	if err != nil {
		return nil, err
	}
	var events []Event
	for line := range strings.Lines(text) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("timeline: %w in %q", err, line)
		}
		events = append(events, e)
	}
	return events, nil
}

// Explain is what the cluster says of a node.
func (c *Cluster) Explain(ctx context.Context, node string) (*Explanation, error) {
	var e Explanation
	return &e, c.CLI(ctx, &e, "node", "explain", node)
}

// WaitState waits until a node is in a state. It gives up at once when the
// node comes into one of the states that only an operator can lead out of.
func (c *Cluster) WaitState(ctx context.Context, node, state string, limit time.Duration) (*Explanation, error) {
	var last *Explanation
	seen := ""
	err := Poll(ctx, "node "+node+" in state "+state, limit, func() (bool, error) {
		if c.Abort != nil {
			if err := c.Abort(); err != nil {
				return false, Final(err)
			}
		}
		e, err := c.Explain(ctx, node)
		if err != nil {
			return false, err
		}
		last = e
		if now := e.Node.State + " " + e.step(); now != seen {
			seen = now
			c.lab.Logf("%s: %s", node, now)
		}
		if e.Node.State != state && strings.HasSuffix(e.Node.State, "_FAILED") {
			return false, Final(fmt.Errorf("%s: %s", e.Node.State, e.Node.LastError))
		}
		return e.Node.State == state, nil
	})
	return last, err
}

func (e *Explanation) step() string {
	if e.Flow.Status != "FLOW_RUNNING" || e.Flow.Cursor >= len(e.Flow.Steps) {
		return ""
	}
	s := e.Flow.Steps[e.Flow.Cursor]
	return fmt.Sprintf("%d/%d %s.%s", e.Flow.Cursor+1, len(e.Flow.Steps), s.Interface, s.Name)
}

// SaveTimeline writes what the cluster knows of a node into the
// directory of the cluster: its timeline, its logs and the explanation.
func (c *Cluster) SaveTimeline(ctx context.Context, node string) {
	for _, p := range c.Peers {
		if !p.Alive() {
			continue
		}
		for _, what := range []string{"timeline", "logs", "explain", "show"} {
			text, err := p.run(ctx, "node", what, node)
			if err != nil {
				text += "\n" + err.Error() + "\n"
			}
			_ = os.WriteFile(filepath.Join(c.dir, node+"-"+what+".txt"), []byte(text), 0o644)
		}
		return
	}
}
