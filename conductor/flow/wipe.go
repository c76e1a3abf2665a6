package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
	"github.com/ironring/ironring/node"
)

// What lies on a disk is overwritten only when this cluster put it there, or
// when somebody said that the data of others may go.

// CleanArgs are what a clean is asked for with.
type CleanArgs struct {
	// WipeExisting says that what other hands left on the disks may go.
	WipeExisting bool `json:"wipe_existing,omitempty"`
}

// ParseCleanArgs reads the arguments of a clean; none are the zero value.
func ParseCleanArgs(doc []byte) (CleanArgs, error) {
	var a CleanArgs
	if len(doc) == 0 {
		return a, nil
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return a, errs.About(errs.Invalid, "args", "arguments of a clean: %w", err)
	}
	return a, nil
}

// mayErase stops a clean before its first byte when there is data on the disks
// that this cluster did not put there: it may be why somebody enrolled the
// machine. The inventory is that of this flow, so that whoever resumes decides
// alike; the agent is given the disks as they were judged here.
func (r *runner) mayErase(p position, inv *agentproto.Inventory) error {
	args, err := ParseCleanArgs(p.flow.GetArgs())
	if err != nil || args.WipeExisting {
		return err
	}
	n := r.cfg.Store.View().Node(r.node)
	strange := strangeData(rootdisk.Wipeable(inv.Disks), inv.Disks, ownership{n}.ofTenant)
	if len(strange) == 0 {
		return nil
	}
	return errs.About(errs.Denied, r.node, "nothing was erased: there is data that Ironring did not put there on %s. If it may be lost for good: %s",
		strings.Join(strange, "; "), cleanAgain(n, " --wipe-existing"))
}

// mayWrite is mayErase for the one disk that a deploy has chosen. That the data
// of others may go was said of the disk that the flow chose first: should it
// come back to the choice, that does not hold for another one. And once the flow
// has begun to write, half an image may be on its disk, which is its own also
// where the disk tells nothing of itself.
func (r *runner) mayWrite(p position, args DeployArgs, inv *agentproto.Inventory, chosen agentproto.Disk) error {
	n := r.cfg.Store.View().Node(r.node)
	switch again := n.GetRootDisk().GetFlowId() == p.flow.GetId(); {
	case !again && args.WipeExisting:
		return nil
	case again && sameChoice(n.GetRootDisk(), chosen) && (args.WipeExisting || begun(p.flow, node.StepWriteImage)):
		return nil
	}
	strange := strangeData([]agentproto.Disk{chosen}, inv.Disks, ownership{n}.written)
	if len(strange) == 0 {
		return nil
	}
	return errs.About(errs.Denied, r.node, "nothing was written: there is data that Ironring did not put there on the chosen disk %s. If it may be lost for good, deploy with --wipe-existing: ironring node deploy %s --image URL --checksum ALGORITHM:HEX --wipe-existing --wait",
		strings.Join(strange, "; "), node.Label(n))
}

// begun reports whether a flow has ever started a step.
func begun(f *api.Flow, id node.StepID) bool {
	return slices.ContainsFunc(f.GetSteps(), func(s *api.Step) bool { return node.IDOf(s) == id && s.GetStarts() > 0 })
}

// cleanAgain are the commands that begin a clean anew after one that failed.
func cleanAgain(n *api.Node, flags string) string {
	name := node.Label(n)
	return fmt.Sprintf("ironring node manage %s --wait; ironring node provide %s%s --wait", name, name, flags)
}

// strangeData names those of some disks of a machine that hold something, or
// that cannot be read, and that are not ours. Pure.
func strangeData(some, all []agentproto.Disk, ours func(d agentproto.Disk, all []agentproto.Disk) bool) []string {
	const most = 20
	var out []string
	for _, d := range some {
		if !rootdisk.Blank(d) && !ours(d, all) {
			out = append(out, rootdisk.Describe(d))
		}
	}
	if more := len(out) - most; more > 0 {
		out = append(out[:most], fmt.Sprintf("and %d more disks", more))
	}
	return out
}
