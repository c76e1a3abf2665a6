package lab

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/flow"
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

// testSwappedBMCs: two machines, each behind the BMC of the other, which here
// is the same as nodes with each other's BMC addresses. Nothing is written on
// either, and both are deployed once the addresses are right. A node that was
// verified with its machine does not even switch the other one.
func testSwappedBMCs(t *testing.T, f *fixture) {
	t.Run("from the start", func(t *testing.T) {
		t.Parallel()
		pair := [2]*node{f.enrolled(t), f.enrolled(t)}
		for _, n := range pair {
			plant(t, n)
		}
		swap(t, f, pair)
		for _, n := range pair {
			f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
		}
		mismatch(t, f, pair, api.Event_EV_PROVIDE, nil, api.State_AVAILABLE, api.State_CLEAN_FAILED, "identity mismatch", "nothing was written", "Is the BMC address that of another machine?")
		for _, n := range pair {
			if got := readAt(t, n.machine.DiskPath(0), 0, len(planted)); string(got) != planted {
				t.Errorf("%s: the head of the disk was changed", n.name)
			}
			f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
			// It was managed with the other machine: a person says that this is it.
			f.says(t, 0, nil, "node", "bmc", "accept-machine", n.name, "--is", "SIM"+n.name, "--wait")
			f.fails(t, n, api.Event_EV_PROVIDE, nil, api.State_AVAILABLE, api.State_CLEAN_FAILED, "nothing was erased", "unknown data", "--wipe-existing")
			untouched(t, n)
			f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
			f.does(t, n, api.Event_EV_PROVIDE, flow.CleanArgs{WipeExisting: true}, api.State_AVAILABLE)
			unbootable(t, n, 0)
		}
	})
	t.Run("after the clean", func(t *testing.T) {
		t.Parallel()
		pair := [2]*node{f.ready(t), f.ready(t)}
		leftAlone(t, f, pair[0], pair[1])
		swap(t, f, pair)
		mismatch(t, f, pair, api.Event_EV_DEPLOY, f.image, api.State_ACTIVE, api.State_DEPLOY_FAILED, "belongs to another machine", "Nothing was changed there")
		for _, n := range pair {
			unbootable(t, n, 0)
			if got := f.images.served(n.name); got != 0 {
				t.Errorf("%d bytes of the image of %s were fetched", got, n.name)
			}
		}
		for _, n := range pair {
			f.deploys(t, n, 0)
		}
	})
}

// planted is what stands on a disk that must not be touched.
const planted = "what somebody would miss"

func plant(t *testing.T, n *node) {
	t.Helper()
	file, err := os.OpenFile(n.machine.DiskPath(0), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(planted)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// address gives a node the BMC of a machine.
func address(t *testing.T, f *fixture, n, of *node) {
	t.Helper()
	doc, err := json.Marshal(of.bmc.Info())
	if err != nil {
		t.Fatal(err)
	}
	f.set(t, n, map[string]string{"driver_info": string(doc)})
}

// leftAlone gives a node the address of another's BMC: the machine there is not
// switched, nor is its indicator, and the node has its own again afterwards.
func leftAlone(t *testing.T, f *fixture, n, other *node) {
	t.Helper()
	address(t, f, n, other)
	was, asked := other.bmc.Power(), len(other.bmc.Trace())
	for _, args := range [][]string{
		{"node", "power", n.name, "off", "--wait"}, {"node", "power", n.name, "on", "--wait"}, {"node", "bmc", "indicator", n.name, "on", "--wait"},
	} {
		f.says(t, 1, []string{"belongs to another machine", "SIM" + other.name, "SIM" + n.name, "ironring node set " + n.name, "Nothing was changed there"}, args...)
	}
	if got := other.bmc.Power(); got != was || len(other.bmc.Trace()) != asked {
		t.Errorf("%s was touched: power %v, was %v; %v", other.name, got, was, other.bmc.Trace()[asked:])
	}
	f.says(t, 0, []string{"not verified"}, "node", "show", n.name)
	address(t, f, n, n)
	f.says(t, 0, nil, "node", "bmc", "indicator", n.name, "on", "--wait")
	out, _ := f.ironring("node", "show", n.name)
	if strings.Contains(out, "not verified") {
		t.Errorf("with its own address again:\n%s", out)
	}
}

func swap(t *testing.T, f *fixture, pair [2]*node) {
	t.Helper()
	address(t, f, pair[0], pair[1])
	address(t, f, pair[1], pair[0])
}

// mismatch has both nodes of a swapped pair do something, which must fail with
// nothing written, and gives each its own BMC back.
func mismatch(t *testing.T, f *fixture, pair [2]*node, verb api.Event, args func(*node) map[string]any, want, rest api.State, why ...string) {
	t.Helper()
	var after [2]uint64
	for i, n := range pair {
		var doc any
		if args != nil {
			doc = args(n)
		}
		after[i] = f.asks(t, n, verb, doc)
	}
	for i, n := range pair {
		f.rests(t, n, after[i], want, rest, why...)
	}
	for _, n := range pair {
		untouched(t, n)
		address(t, f, n, n)
	}
}
