package flow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Evidence that a deployed system runs. The boot entry is read back in every
// deploy; what else must be seen before the node is active is the policy: of
// the request, else instance_info/evidence, else none. The record says what was
// seen (api.Evidence); what is not seen in time fails the deploy.

// EvidencePolicy is what must be seen of a deployed system.
type EvidencePolicy struct {
	PhoneHome bool       // it calls a peer's boot listener
	Host      netip.Addr // of a port; invalid: the addresses of the node's ports
	Port      uint16     // it answers on a TCP port
	Console   string     // it prints a line with this pattern (RE2) on the serial console
}

// None says whether nothing but the boot entry is looked at.
func (p EvidencePolicy) None() bool { return p == EvidencePolicy{} }

func (p EvidencePolicy) String() string {
	switch {
	case p.PhoneHome:
		return "phone_home"
	case p.Console != "":
		return "console:" + p.Console
	case p.Port != 0 && p.Host.IsValid():
		return "port:" + netip.AddrPortFrom(p.Host, p.Port).String()
	case p.Port != 0:
		return fmt.Sprintf("port:%d", p.Port)
	}
	return "none"
}

// ParseEvidence reads "none", "phone_home", "port:22", "port:192.0.2.7:22" or
// "console:login:".
func ParseEvidence(text string) (EvidencePolicy, error) {
	const forms = "none, phone_home, port:PORT, port:ADDRESS:PORT or console:REGEXP"
	switch {
	case text == "" || text == "none":
		return EvidencePolicy{}, nil
	case text == "phone_home":
		return EvidencePolicy{PhoneHome: true}, nil
	case text == "console" || strings.HasPrefix(text, "console:"):
		pattern := strings.TrimPrefix(strings.TrimPrefix(text, "console"), ":")
		_, err := parsePattern(pattern)
		return EvidencePolicy{Console: pattern}, err
	}
	spec, ok := strings.CutPrefix(text, "port:")
	if !ok {
		return EvidencePolicy{}, errs.About(errs.Invalid, "evidence", "evidence: %s, not %q", forms, text)
	}
	if at, err := netip.ParseAddrPort(spec); err == nil && at.Port() != 0 {
		return EvidencePolicy{Host: at.Addr(), Port: at.Port()}, nil
	}
	if n, err := strconv.ParseUint(spec, 10, 16); err == nil && n != 0 {
		return EvidencePolicy{Port: uint16(n)}, nil
	}
	return EvidencePolicy{}, errs.About(errs.Invalid, "evidence", "evidence: %q is no port: %s", spec, forms)
}

// Bounds of the wait for evidence.
const (
	EvidenceWait     = 20 * time.Minute // unless the request says otherwise
	EvidenceWaitMost = 4 * time.Hour
)

// Evidence is the policy of a deploy for a node, and how long it may take.
func (a DeployArgs) evidence(n *api.Node) (EvidencePolicy, error) {
	text := a.Evidence
	if text == "" {
		var info struct {
			Evidence string `json:"evidence"`
		}
		if err := json.Unmarshal(n.GetInstanceInfo(), &info); len(n.GetInstanceInfo()) > 0 && err != nil {
			return EvidencePolicy{}, errs.About(errs.Invalid, "instance_info/evidence", "instance_info/evidence: %w", err)
		}
		text = info.Evidence
	}
	return ParseEvidence(text)
}

// AddEvidence checks what a deploy says of evidence, freezes the policy in its
// arguments, and has the flow wait for what must be seen. Where the system is
// to phone home and the request brings no token, one is made, which reaches
// the system by its config drive.
//
// The arguments are to be sealed after it: the token stands in them, and its
// digest in the flow.
func AddEvidence(f *api.Flow, a *DeployArgs, n *api.Node) error {
	step, err := evidenceStep(*a, n)
	if err != nil {
		return err
	}
	p, err := a.evidence(n)
	if err != nil || p.None() {
		a.Evidence = ""
		return err
	}
	a.Evidence = p.String()
	f.Steps = append(f.Steps, step)
	if !p.PhoneHome {
		return nil
	}
	if a.PhoneHomeToken == "" {
		d, err := configdrive.Parse(a.ConfigDrive)
		if err != nil {
			return err
		}
		if d == nil || d.Files == nil {
			return errs.About(errs.Invalid, "phone_home_token",
				"evidence phone_home: the deployed system could not know the token that is made for it; give a config drive of documents (its meta data gets phone_home_urls), or the phone_home_token that the system has")
		}
		a.PhoneHomeToken = rand.Text()
	}
	f.PhoneHomeDigest = node.PhoneHomeDigest(a.PhoneHomeToken)
	return nil
}

// evidenceStep checks what a deploy says of evidence and gives the step that
// waits for it, nil when the boot entry is enough.
func evidenceStep(a DeployArgs, n *api.Node) (*api.Step, error) {
	p, err := a.evidence(n)
	if err != nil {
		return nil, err
	}
	wait := EvidenceWait
	if a.EvidenceTimeout != 0 {
		wait = time.Duration(a.EvidenceTimeout) * time.Second
	}
	switch {
	case a.EvidenceTimeout < 0 || wait > EvidenceWaitMost:
		return nil, errs.About(errs.Invalid, "evidence_timeout", "evidence_timeout: seconds, at most %.0f", EvidenceWaitMost.Seconds())
	case a.PhoneHomeToken != "" && !p.PhoneHome:
		return nil, errs.About(errs.Invalid, "phone_home_token", "phone_home_token is of use with evidence phone_home only")
	case a.PhoneHomeToken != "" && !bootpath.ValidToken(a.PhoneHomeToken):
		return nil, errs.About(errs.Invalid, "phone_home_token", "phone_home_token: 16 to 128 of A-Z, a-z, 0-9, _ and -")
	case p.None():
		return nil, nil
	}
	step, err := node.NewStep(node.StepEvidence, nil)
	if err != nil {
		return nil, err
	}
	hold := wait + 15*time.Second // the lock's limit is for tasks that hang
	if ahead(hold) < 15*time.Second {
		hold = wait * 8 / 7
	}
	step.HoldLimitMs = uint64(hold.Milliseconds())
	return step, nil
}

// newEvidence is the record with which a deploy begins, before the first byte.
func (r *runner) newEvidence(f *api.Flow, a DeployArgs) (*api.Evidence, error) {
	p, err := a.evidence(r.cfg.Store.View().Node(r.node))
	if err != nil {
		return nil, err
	}
	return &api.Evidence{Policy: p.String(), FlowId: f.GetId(), PhoneHomeDigest: f.GetPhoneHomeDigest()}, nil
}

// entryRead puts what the agent read back into the record.
func (r *runner) entryRead(f *api.Flow, res agentproto.BootEntryResult) (*api.Op, error) {
	text := res.Mode
	switch {
	case res.Mode == "uefi" && res.Entry == "":
		return nil, errs.About(errs.Internal, r.node, "the agent does not say which boot entry the firmware will use")
	case res.Mode == "uefi":
		text = strings.TrimSpace("uefi " + res.Entry + " " + res.Loader)
	}
	e := r.evidence(f)
	e.BootEntry, e.BootEntryMs = text, r.cfg.Clock.Now().UnixMilli()
	return r.write(f, []string{"evidence"}, &api.Node{Evidence: e}), nil
}

// evidence is a copy of the record of this flow.
func (r *runner) evidence(f *api.Flow) *api.Evidence {
	if e := r.cfg.Store.View().Node(r.node).GetEvidence(); e.GetFlowId() == f.GetId() {
		return proto.CloneOf(e)
	}
	return &api.Evidence{Policy: EvidencePolicy{}.String(), FlowId: f.GetId()}
}

// forgets is what the first step of a teardown is committed with: the evidence
// is of a system that is about to end.
func (r *runner) forgets(f *api.Flow) []*api.Op {
	if f.GetKind() != api.FlowKind_FLOW_TEARDOWN || f.GetCursor() != 0 || r.cfg.Store.View().Node(r.node).GetEvidence() == nil {
		return nil
	}
	return []*api.Op{r.write(f, []string{"evidence"}, &api.Node{})}
}

// phoneHomeURLs are where a deployed system may call, one of each peer that
// has a boot listener.
func phoneHomeURLs(v *fsm.View, token string) (urls []string) {
	if token == "" {
		return nil
	}
	for _, m := range v.Members() {
		host, _, err := net.SplitHostPort(m.GetBootAddress())
		if a, aerr := netip.ParseAddr(host); err != nil || aerr == nil && a.IsUnspecified() {
			continue
		}
		urls = append(urls, "http://"+m.GetBootAddress()+bootpath.PhoneHome+token)
	}
	return urls
}

// evidenceEvery is how often a port is tried, evidenceDial how long once.
const (
	evidenceEvery = 5 * time.Second
	evidenceDial  = 3 * time.Second
)

// waitForEvidence waits until the deployed system was seen as the policy says.
func (r *runner) waitForEvidence(ctx context.Context, p position) (outcome, error) {
	args, err := r.deployArgs(p.flow)
	if err != nil {
		return outcome{}, err
	}
	policy, err := args.evidence(r.cfg.Store.View().Node(r.node))
	if err != nil {
		return outcome{}, err
	}
	if policy.Console != "" {
		return r.waitForConsole(ctx, p, policy)
	}
	sig, stop := r.cfg.Watch.Subscribe(r.node)
	defer stop()
	tick := time.NewTicker(evidenceEvery)
	defer tick.Stop()
	for {
		e := r.evidence(p.flow)
		if e.GetSeen() != "" {
			return outcome{result: map[string]any{"seen": e.GetSeen(), "source": e.GetSource()}}, nil
		}
		if policy.Port != 0 {
			if at := r.answers(ctx, policy); at != "" {
				e.Seen, e.SeenMs, e.Source = policy.String(), r.cfg.Clock.Now().UnixMilli(), at
				return outcome{
					result: map[string]any{"seen": e.GetSeen(), "source": at},
					ops:    []*api.Op{r.write(p.flow, []string{"evidence"}, &api.Node{Evidence: e})},
				}, nil
			}
		}
		r.gate.Progress(r.token)
		select {
		case <-ctx.Done():
			return outcome{}, unseen(policy, context.Cause(ctx))
		case <-sig.C:
		case <-tick.C:
		}
	}
}

func unseen(p EvidencePolicy, cause error) error {
	what := fmt.Sprintf("nothing answered on %s", p)
	if p.PhoneHome {
		what = "the deployed system did not phone home"
	}
	return fmt.Errorf("%s; the image is on the disk and the machine was switched on: look at its console: %w", what, cause)
}

// answers tries the port at each address that the system may have.
func (r *runner) answers(ctx context.Context, p EvidencePolicy) (at string) {
	addrs := []netip.Addr{p.Host}
	if !p.Host.IsValid() {
		addrs = r.addresses()
	}
	for _, a := range addrs {
		dctx, cancel := context.WithTimeout(ctx, evidenceDial)
		conn, err := r.cfg.Dial(dctx, "tcp", netip.AddrPortFrom(a, p.Port).String())
		cancel()
		if err == nil {
			conn.Close()
			return a.String()
		}
	}
	return ""
}

// addresses are those that the node's ports have on our networks.
func (r *runner) addresses() (out []netip.Addr) {
	v := r.cfg.Store.View()
	for _, port := range v.PortsOf(r.node) {
		for _, n := range v.Networks() {
			if a, err := netip.ParseAddr(v.Address(n.GetName(), port.GetAddress()).GetIp()); err == nil {
				out = append(out, a)
			}
		}
	}
	return out
}
