package flow

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
)

// A machine takes ten minutes to boot. Only another peer sees it ask for its
// files, and no copy of that comes here: it is not switched off meanwhile. When
// that peer sees nothing new either, it is.
func TestBootSeenByOthers(t *testing.T) {
	for name, seen := range map[string]bool{"it gets on": true, "it stands still": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(c *conductortest.MachineConfig) { c.BootTime = 10 * time.Minute }, func(r *rig) {
				s := r.start("p1")
				var mu sync.Mutex
				asked := int64(0)
				s.engine.cfg.PeerFacts = func(context.Context, string) map[string]*api.LiveFacts {
					mu.Lock()
					defer mu.Unlock()
					f := &api.LiveFacts{BootContactMs: -1 << 40, BootStage: "initramfs"} // its clock is far off
					if seen {
						asked++
						f.BootContactMs += asked
					}
					return map[string]*api.LiveFacts{"p2": f, "p3": {}}
				}
				r.enrol("p1")
				r.begin(api.Event_EV_MANAGE)
				r.idle(time.Minute)
				r.begin(api.Event_EV_INSPECT)
				r.idle(time.Hour)
				if seen {
					r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
				} else {
					r.wants(api.State_INSPECT_FAILED, api.FlowStatus_FLOW_FAILED)
					if want := `the machine was last seen at stage "initramfs"`; !strings.Contains(r.node().GetLastError(), want) {
						r.Errorf("%q", r.node().GetLastError())
					}
				}
			})
		})
	}
}
