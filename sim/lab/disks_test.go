package lab

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

// testTwoDisks: with two disks and no hint nothing is written; the error lists
// the disks and what to paste; with that the deploy goes to the right one.
func testTwoDisks(t *testing.T, f *fixture) {
	for _, c := range []struct {
		name  string
		paste func(t *testing.T, n *node, hint, flag string) // gives the hint to Ironring
	}{
		{"as a property of the node", func(t *testing.T, n *node, hint, _ string) {
			f.set(t, n, map[string]string{"properties/root_device": hint})
			f.deploys(t, n, 1)
		}},
		{"at the deploy", func(t *testing.T, n *node, _, flag string) {
			f.says(t, 0, []string{"active"}, "node", "deploy", n.name, "--wait", "--image", f.images.url(n.name), "--checksum", f.images.checksum,
				"--root-device", flag)
			f.bootsDisk(t, n, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := f.ready(t, machineDisk, machineDisk)
			first, second := "DISK"+n.name+"A", "DISK"+n.name+"B"
			why := f.fails(t, n, api.Event_EV_DEPLOY, f.image(n), api.State_ACTIVE, api.State_DEPLOY_FAILED,
				"deploy.choose_disk", "the machine has 2 disks and no root device hint", first, second)
			untouched(t, n)
			if got := f.images.served(n.name); got != 0 {
				t.Errorf("%d bytes of the image were fetched", got)
			}
			line := regexp.MustCompile(`.*serial ` + second + `.*: properties/root_device=(\{.*\}) or --root-device '(.*)'`).FindStringSubmatch(why)
			if line == nil {
				t.Fatalf("no hint for disk %s to paste in %q", second, why)
			}
			c.paste(t, n, line[1], line[2])
			unbootable(t, n, 0)
			if !sameBytes(n.machine.DiskPath(1), f.images.body) {
				t.Error("the second disk does not hold the image")
			}
		})
	}
}

// testSwappedBMCs: two machines, each behind the BMC of the other. The nodes
// were right when they were cleaned; then somebody swapped the cables, which
// here is the same as swapping the addresses. Nothing is written on either.
func testSwappedBMCs(t *testing.T, f *fixture) {
	var pair [2]*node
	for i := range pair {
		pair[i] = f.ready(t)
	}
	info := func(n *node) map[string]string {
		doc, err := json.Marshal(n.bmc.Info())
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"driver_info": string(doc)}
	}
	f.set(t, pair[0], info(pair[1]))
	f.set(t, pair[1], info(pair[0]))
	var after [2]uint64
	for i, n := range pair {
		after[i] = f.asks(t, n, api.Event_EV_DEPLOY, f.image(n))
	}
	for i, n := range pair {
		why := f.rests(t, n, after[i], api.State_ACTIVE, api.State_DEPLOY_FAILED, "identity mismatch", "nothing was written")
		if !strings.Contains(why, "Is the BMC address that of another machine?") {
			t.Errorf("no advice in %q", why)
		}
	}
	for _, n := range pair {
		untouched(t, n)
		unbootable(t, n, 0)
		if got := f.images.served(n.name); got != 0 {
			t.Errorf("%d bytes of the image of %s were fetched", got, n.name)
		}
		f.set(t, n, info(n))
	}
	for _, n := range pair {
		f.deploys(t, n, 0)
	}
}
