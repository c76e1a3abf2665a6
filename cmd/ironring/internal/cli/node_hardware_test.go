package cli

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

// What may be of another machine is not shown without a word, and the word does
// not get between what a program reads.
func TestHardwareOfAnUnverifiedBMC(t *testing.T) {
	d := newDesk(t)
	d.does(0, "enrolled", "node", "create", "--name", "n1", "--driver", "fake")
	for _, verified := range []bool{true, false} {
		d.fake.Change("n1", func(n *api.Node, _ *api.Flow) {
			n.Bmc = &api.BmcFacts{Serial: "S-17", DriverRev: n.GetDriverRev()}
			if !verified {
				n.DriverRev++
			}
		})
		for _, verb := range []string{"sensors", "events", "inventory", "indicator"} {
			code, out, err := d.run(nil, "node", "bmc", verb, "n1")
			if code != 0 || strings.Contains(out, "another machine") || strings.Contains(err, "another machine") == verified {
				t.Errorf("%s, verified %v: exit code %d, stdout %q, stderr %q", verb, verified, code, out, err)
			}
		}
	}
	d.does(0, "may be of another machine", "node", "show", "n1")
}
