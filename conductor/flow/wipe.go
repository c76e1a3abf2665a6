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
// machine. A disk is ours when we have erased it before or deployed to it. The
// inventory is that of this flow, so that whoever resumes decides alike.
func (r *runner) mayErase(p position, inv *agentproto.Inventory) error {
	args, err := ParseCleanArgs(p.flow.GetArgs())
	if err != nil || args.WipeExisting {
		return err
	}
	n := r.cfg.Store.View().Node(r.node)
	strange := strangeData(inv.Disks, n)
	if len(strange) == 0 {
		return nil
	}
	name := node.Label(n)
	return errs.About(errs.Denied, r.node,
		"nothing was erased: there is data that Ironring did not put there on %s. If it may be lost for good: ironring node manage %s; ironring node provide %s --wipe-existing --wait",
		strings.Join(strange, "; "), name, name)
}

// strangeData names the disks that a clean would wipe, that hold something,
// and that are not ours. Pure.
func strangeData(disks []agentproto.Disk, n *api.Node) []string {
	const most = 20
	var out []string
	why := rootdisk.Untouchable(disks)
	for i, d := range disks {
		if why[i] != "" || d.Contents != nil && len(d.Contents) == 0 || ours(d, n) {
			continue
		}
		what := strings.Join(d.Contents, ", ")
		if d.Contents == nil {
			what = "not known what"
		}
		out = append(out, fmt.Sprintf("%s (%s, %.1f GB): %s", d.Name, label(rootdisk.ID(d)), float64(d.SizeBytes)/1e9, what))
	}
	if more := len(out) - most; more > 0 {
		out = append(out[:most], fmt.Sprintf("and %d more disks", more))
	}
	return out
}

// ours reports whether the last that is known to have been put on a disk was
// put there by this cluster: by a clean, or by a deployment.
func ours(d agentproto.Disk, n *api.Node) bool {
	if slices.Contains(n.GetErasure().GetDisks(), label(rootdisk.ID(d))) {
		return true
	}
	root := n.GetRootDisk()
	switch {
	case root == nil:
		return false
	case root.GetSerial() != "" || root.GetWwn() != "":
		return root.GetSerial() == d.Serial && root.GetWwn() == d.WWN
	}
	return root.GetByPath() == d.ByPath && root.GetName() == d.Name && root.GetSizeBytes() == d.SizeBytes
}
