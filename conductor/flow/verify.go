package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Whose BMC it is. A flow asks the BMC who it is before its first step there,
// unless the record was verified with the node's present driver_info: an address
// in driver_info may be that of another machine, another node's or a stranger's.
//
// Rules: driver and driver_info cannot be changed while a flow is under way, and
// what was found is committed under the lock at the flow's position, with the
// driver_rev of the record that was asked with. So what a step changes is what
// was verified; the replicated state announces no change otherwise (IntentOpen),
// and package bmc makes none.

// verified makes sure of the BMC before a step that uses it. A node that was
// never managed has nothing to compare with: then it is enough that nobody else
// has the machine, and what was found is recorded.
func (r *runner) verified(ctx context.Context, p position) error {
	if id := node.IDOf(p.step); agentOnly(p.flow) || id == node.StepIdentifyBMC || id == node.StepAcceptMachine {
		return nil // the latter two write what they find
	}
	n := r.cfg.Store.View().Node(r.node)
	if node.Verified(n) {
		return nil
	}
	facts, err := r.cfg.BMC.Identify(ctx, r.node)
	if err != nil {
		return r.loginError(err)
	}
	if n.GetBmc() != nil {
		if err := sameAsBefore(n, facts); err != nil {
			return err
		}
	}
	if err := r.unclaimed(facts); err != nil {
		return err
	}
	text := "the BMC is verified"
	if n.GetBmc() != nil {
		text = "the BMC is verified with the new driver_info"
		facts = r.richer(facts, n.GetBmc())
	}
	r.event(p.flow, text+": "+named(facts))
	_, err = r.commit(ctx, text, r.write(p.flow, []string{"bmc"}, &api.Node{Bmc: facts}))
	return err
}

// richer keeps what was known of the same machine and is not told this time, but
// for what another node has by now.
func (r *runner) richer(is, was *api.BmcFacts) *api.BmcFacts {
	all := node.Richer(is, was)
	if r.cfg.Store.View().NodeWithBMC(all, r.node) != nil {
		return is
	}
	return all
}

// sameAsBefore refuses a BMC that is not, or not for sure, that of the machine
// that the node was verified with before its driver_info changed. Pure.
func sameAsBefore(n *api.Node, facts *api.BmcFacts) error {
	like := node.Compare(facts, n.GetBmc())
	if like == node.SameMachine || like == node.Untold && macOnly(n) {
		return nil
	}
	what := "belongs to another machine than the one that node %s was verified with"
	if like == node.Untold {
		what = "tells nothing that shows that it belongs to the machine that node %s was verified with"
	}
	was, _ := node.Machine(n.GetBmc())
	_, name := node.Machine(facts)
	label := node.Label(n)
	accept := fmt.Sprintf("`ironring node bmc accept-machine %s --is %s`", label, word(name))
	if n.GetState() == api.State_ENROLL {
		accept = fmt.Sprintf("`ironring node manage %s`", label)
	}
	return errs.About(errs.Denied, n.GetId(),
		"driver_info has changed, and the BMC that it leads to (%s) "+what+": found is %s, on record is %s. Nothing was changed there. Put driver_info right with `ironring node set %s --driver-info ...`; if this is the node's machine from now on, %s",
		facts.GetBmcKey(), label, named(facts), was, label, accept)
}

// word is what a BMC calls itself as an argument of a command that is told to a
// person. A BMC says what it likes, and this one is not the one that was meant:
// where the shell could read it as more than a word the person is to write it.
func word(name string) string {
	const harmless = " .,:;_/+=@%#()[]-"
	if strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(harmless, r))
	}) {
		return "NAME (the UUID or serial number that was found, quoted with care: it has characters that mean something to a shell)"
	}
	return "'" + name + "'"
}

func named(f *api.BmcFacts) string {
	text, _ := node.Machine(f)
	return text
}

// macOnly says whether a site has told that the BMC of a node tells nothing.
func macOnly(n *api.Node) bool {
	var props struct {
		IdentityCheck string `json:"identity_check"`
	}
	_ = json.Unmarshal(n.GetProperties(), &props) // canonical JSON: checked on entry
	return props.IdentityCheck == "mac-only"
}

// unclaimed refuses a BMC or a machine that another node was verified with, so
// that a person reads it as the reason; that two nodes verified at the same time
// do not both get it, the replicated state sees to. What a node was verified
// with before its own driver_info changed counts too: only a person may decide
// that it is another's (acceptMachine).
func (r *runner) unclaimed(facts *api.BmcFacts) error {
	other := r.cfg.Store.View().NodeWithBMC(facts, r.node)
	if other == nil {
		return nil
	}
	hint := "check driver_info of both"
	if node.BMCChanged(other) {
		hint = fmt.Sprintf("driver_info of %s has changed since: use %s first, which verifies it anew, or check driver_info of both", node.Label(other), node.Label(other))
	}
	return errs.About(errs.Exists, r.node, "node %s has this BMC (%s) or its machine (%s) already: two nodes cannot be one machine; nothing was changed there; %s",
		node.Label(other), facts.GetBmcKey(), named(facts), hint)
}

// acceptMachine takes the machine behind the BMC for the node's, because a
// person has named it. Nothing is changed at the BMC. The agent of the machine
// that was there before, if it was kept, is not gone on with.
func (r *runner) acceptMachine(ctx context.Context, p position) (outcome, error) {
	args, err := hardwareArgs(p)
	if err != nil {
		return outcome{}, err
	}
	facts, err := r.cfg.BMC.Identify(ctx, r.node)
	if err != nil {
		return outcome{}, r.loginError(err)
	}
	if !node.IsMachine(facts, args.Machine) {
		return outcome{}, errs.About(errs.Denied, r.node, "the machine behind the BMC is not %q: found is %s", args.Machine, named(facts))
	}
	return outcome{
		result: map[string]any{"machine": named(facts)},
		ops:    append([]*api.Op{r.write(p.flow, []string{"bmc"}, &api.Node{Bmc: facts})}, r.agesBoot(p)...),
	}, nil
}
