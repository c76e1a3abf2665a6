package flow

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

// consoleCalls are when the console was opened, and when the machine was last
// switched on.
func (r *rig) consoleCalls() (opened []time.Time, on time.Time) {
	for _, c := range r.bmc.Calls() {
		switch {
		case c.Verb == fake.ReadConsole:
			opened = append(opened, c.Received)
		case c.Verb == fake.SetPower && c.Action == api.PowerAction_POWER_ACTION_ON:
			on = c.Received
		}
	}
	return opened, on
}

// The console is open before the machine is switched on, and a line of it makes
// the node active; also when the conductor is killed while it waits, and what it
// had read is printed again.
func TestEvidenceConsole(t *testing.T) {
	for _, killed := range []bool{false, true} {
		inBubble(t, nil, func(r *rig) {
			r.start("p1")
			r.ready("p1")
			r.start("p2")
			r.deployWith(DeployArgs{Evidence: "console:login: *$"})
			r.waitStep("evidence")
			opened, on := r.consoleCalls()
			if len(opened) != 1 || !opened[0].Before(on) && !opened[0].Equal(on) || !r.bmc.ConsoleOpen() {
				r.Errorf("opened %v, switched on %v, open is %v", opened, on, r.bmc.ConsoleOpen())
			}
			r.bmc.Print("GRUB\r\n\x1b[2JLinux\r\nno login today\r\n")
			conductortest.Pass(time.Minute)
			if r.state() != api.State_DEPLOY_WAIT {
				r.Errorf("state %v before the prompt", r.state())
			}
			if killed {
				r.bmc.Print("web1 lo") // the rest is lost
				r.c.Peer("p1").Kill()
				conductortest.Until(r, 10*time.Minute, "the successor to read the console", func() bool {
					opened, _ := r.consoleCalls()
					return len(opened) > 1 && r.bmc.ConsoleOpen()
				})
			}
			r.bmc.Print("web1 login: ")
			r.idle(10 * time.Minute)
			r.checkDeploy(0)
			if e := r.node().GetEvidence(); e.GetSeen() != "console:login: *$" || e.GetSource() != `the console's line "web1 login:"` || e.GetSeenMs() == 0 {
				r.Errorf("evidence %v", e)
			}
			if r.bmc.ConsoleOpen() {
				r.Error("the console is still read")
			}
		})
	}
}

// A wait in vain ends in time, and says when the console was read. A session
// that ends or says nothing for long is opened anew.
func TestEvidenceConsoleNotSeen(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.deployWith(DeployArgs{Evidence: "console:login:", EvidenceTimeout: 600})
		r.waitStep("evidence")
		begin := time.Now()
		r.bmc.Print("panic\r\n")
		r.idle(time.Hour)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		text := r.node().GetLastError()
		for _, want := range []string{`no line with "login:" was seen on the serial console, which was read from 20`, " to 20", " sessions", "(7 bytes)", "look at its console", "not done in 10m0s"} {
			if !strings.Contains(text, want) {
				r.Errorf("%q lacks %q", text, want)
			}
		}
		if strings.Contains(text, "panic") {
			r.Errorf("the console's text is in %q", text)
		}
		if opened, _ := r.consoleCalls(); len(opened) < 4 || len(opened) > 7 {
			r.Errorf("a silent console was opened %d times", len(opened))
		}
		if took := time.Since(begin); took > 620*time.Second || r.bmc.ConsoleOpen() {
			r.Errorf("it took %v, open is %v", took, r.bmc.ConsoleOpen())
		}
	})
}

// A console that cannot be opened keeps no machine from being switched on, and
// one that never can fails the deploy at once.
func TestEvidenceConsoleRefused(t *testing.T) {
	for kind, says := range map[errs.Kind]string{
		errs.Unsupported: "serial over LAN is off",
		errs.Unreachable: "the serial console could not be read from 20",
	} {
		inBubble(t, nil, func(r *rig) {
			r.start("p1")
			r.ready("p1")
			r.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.ReadConsole, Err: errs.New(kind, "serial over LAN is off")})
			r.deployWith(DeployArgs{Evidence: "console:login:", EvidenceTimeout: 600})
			begin := time.Now()
			r.idle(time.Hour)
			r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
			if text := r.node().GetLastError(); !strings.Contains(text, says) || !strings.Contains(text, "serial over LAN is off") {
				r.Errorf("%v: %q", kind, text)
			}
			if took := time.Since(begin); (took < 8*time.Minute) != (kind == errs.Unsupported) {
				r.Errorf("%v: it took %v", kind, took)
			}
			if r.bmc.Power() != api.PowerState_POWER_ON {
				r.Error("the machine was not switched on")
			}
		})
	}
}

// An aborted deploy gives the console back.
func TestEvidenceConsoleAborted(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.deployWith(DeployArgs{Evidence: "console:login:"})
		r.waitStep("evidence")
		r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_ABORT}}})
		r.idle(10 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_ABORTED)
		if r.bmc.ConsoleOpen() {
			r.Error("the console is still read")
		}
	})
}

// A line that was printed before the console failed for good, or before the
// time was over, is evidence; also one that had not ended. Which of the ready
// channels a select takes is chance, hence the repetitions.
func TestEvidenceConsoleSeenAndLost(t *testing.T) {
	const pattern, repetitions = "login:", 1000
	lost := errs.New(errs.Unsupported, "serial over LAN was switched off")
	for name, test := range map[string]struct {
		printed       string
		failed, ended bool
		seen          string
	}{
		"a line, then failed":          {"web1 login: \r\n", true, false, "web1 login:"},
		"a prompt, then failed":        {"web1 login: ", true, false, "web1 login:"},
		"a line, then ended":           {"web1 login: \r\n", false, true, "web1 login:"},
		"a prompt, then ended":         {"web1 login: ", false, true, "web1 login:"},
		"a line, then failed and over": {"web1 login: \r\n", true, true, "web1 login:"},
		"another line, then failed":    {"panic\r\n", true, false, ""},
		"another line, then ended":     {"panic\r\n", false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := conductortest.New(t, "p1")
				engine := &Engine{cfg: Config{Store: c.Store, Clock: c.Clock}}
				over := errs.New(errs.Timeout, "not done in 10m0s")
				for range repetitions {
					w := &consoleWatch{
						finder: newLineFinder(regexp.MustCompile(pattern)), began: c.Clock.Now(), cancel: func() {},
						opened: make(chan struct{}), failed: make(chan error, 1), done: make(chan struct{}), sessions: 1,
					}
					close(w.done)
					_, _ = w.finder.Write([]byte(test.printed))
					if test.failed {
						w.failed <- lost
					}
					ctx, cancel := context.WithCancelCause(t.Context())
					if test.ended {
						cancel(over)
					}
					r := &runner{Engine: engine, node: nodeID, console: w}
					out, err := r.waitForConsole(ctx, position{flow: &api.Flow{Id: "f1"}}, EvidencePolicy{Console: pattern})
					cancel(nil)
					if test.seen == "" {
						if !errors.Is(err, lost) && !errors.Is(err, over) {
							t.Fatalf("error %v", err)
						}
						continue
					}
					if err != nil || r.console != nil || len(out.ops) != 1 {
						t.Fatalf("error %v, console %v, operations %v", err, r.console, out.ops)
					}
					e := out.ops[0].GetNodeWrite().GetNode().GetEvidence()
					if want := `the console's line "` + test.seen + `"`; e.GetSeen() != "console:"+pattern || e.GetSource() != want || e.GetSeenMs() == 0 {
						t.Fatalf("evidence %v", e)
					}
				}
			})
		})
	}
}
