package cli

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

// What is accepted is accepted for the node that was read: when somebody
// changes it meanwhile, perhaps its BMC's address, nothing is done.
func TestAcceptMachineOfARevision(t *testing.T) {
	d := newDesk(t)
	d.does(0, "enrolled", "node", "create", "--name", "n1", "--driver", "fake")
	line := []string{"node", "bmc", "accept-machine", "n1", "--is", "4c4c4544-0035-4d10-8032-b4c04f4a3332"}
	d.does(0, "accept-machine of node n1 accepted", line...)
	before := len(d.fake.Done())
	d.peer.After(func(method string) error {
		if strings.HasSuffix(method, "GetNode") {
			d.fake.Change("n1", func(n *api.Node, _ *api.Flow) { n.DriverInfo = []byte(`{"redfish_address":"https://10.0.0.2"}`) })
		}
		return nil
	})
	code, out, err := d.run(nil, line...)
	if code != 7 || len(d.fake.Done()) != before {
		t.Errorf("exit code %d, done %q: %s%s", code, d.fake.Done()[before:], out, err)
	}
}
