package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
)

// Every command of a deployment that one peer begins and another finishes says
// who asked for it, from where, and why; and the reasons of the flow's own
// commits name the step and what became of it.
func TestEveryCommandSaysWhoAndWhy(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.c.Peer("p1").Kill()
		conductortest.Until(r, 10*time.Minute, "takeover", func() bool { return r.holder() == "p2" })
		r.idle(time.Hour)
		r.checkDeploy(0)

		reasons := map[string]bool{}
		for i, cmd := range r.c.Log() {
			m := cmd.GetMeta()
			if m.GetPrincipal() == "" || m.GetSource() == "" || m.GetReason() == "" {
				r.Errorf("command %d lacks one of principal, source and reason: %v", i, cmd)
			}
			reasons[m.GetReason()] = true
		}
		for _, want := range []string{"renew the lease", "take the lock for deploy", "power_on: intent opened", "write_image: started", "write_image: done", "deploy done"} {
			found := false
			for reason := range reasons {
				found = found || strings.Contains(reason, want)
			}
			if !found {
				r.Errorf("no command has the reason %q; there are %v", want, reasons)
			}
		}
	})
}
