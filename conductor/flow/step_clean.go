package flow

import (
	"context"
	"fmt"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// maxToldDisks bounds the result of a clean: a step's result is replicated.
const maxToldDisks = 64

// eraseMetadata wipes partition tables and signatures of every disk of the
// machine that may be written at all, members of RAIDs included. The agent
// decides by what it sees now; which disks were left alone, and why, is in the
// step's result. The data remains, and the record says so.
func (r *runner) eraseMetadata(ctx context.Context, p position) (outcome, error) {
	inv, err := r.stored()
	if err != nil {
		return outcome{}, err
	}
	if err := r.mayErase(p, inv); err != nil {
		return outcome{}, err
	}
	var res agentproto.EraseResult
	if err := r.command(ctx, p, agentproto.CmdEraseMetadata, agentproto.EraseArgs{Every: true}, &res); err != nil {
		return outcome{}, err
	}
	if err := erasedAll(inv.Disks, res.Disks); err != nil {
		return outcome{}, errs.About(errs.Internal, r.node, "%w", err)
	}
	erased := &api.Erasure{Level: api.Erasure_METADATA, DoneMs: r.cfg.Clock.Now().UnixMilli(), FlowId: p.flow.GetId()}
	was := map[string][]string{}
	for _, d := range res.Disks {
		name := label(d.DiskID)
		erased.Disks = append(erased.Disks, name)
		if len(d.MemberOf) > 0 && len(was) < maxToldDisks {
			was[name] = d.MemberOf
		}
	}
	out := map[string]any{"disks": told(erased.GetDisks()), "level": "metadata only, data remains"}
	if len(was) > 0 {
		out["member_of"] = was
	}
	var skipped []string
	for _, d := range res.Skipped {
		skipped = append(skipped, fmt.Sprintf("%s (%s): %s", d.Name, label(d.DiskID), d.Reason))
	}
	if len(skipped) > 0 {
		out["skipped"] = told(skipped)
	}
	return outcome{result: out, ops: []*api.Op{r.write(p.flow, []string{"erasure", "root_disk"}, &api.Node{Erasure: erased})}}, nil
}

// label is a disk as people know it from its case.
func label(d agentproto.DiskID) string {
	if d.Serial != "" {
		return d.Serial
	}
	return d.Name
}

// told cuts a list that is too long for a result.
func told(list []string) []string {
	if len(list) <= maxToldDisks {
		return list
	}
	return append(list[:maxToldDisks:maxToldDisks], fmt.Sprintf("and %d more", len(list)-maxToldDisks))
}

// erasedAll checks that no disk that the inventory shows as one to be wiped
// was left out.
func erasedAll(inventory []agentproto.Disk, erased []agentproto.ErasedDisk) error {
	done := map[agentproto.DiskID]bool{}
	for _, d := range erased {
		id := d.DiskID
		id.Name = "" // may be another one since
		done[id] = true
	}
	why := rootdisk.Untouchable(inventory)
	for i, d := range inventory {
		id := rootdisk.ID(d)
		id.Name = ""
		if why[i] == "" && !done[id] {
			return fmt.Errorf("the agent erased %d disks and left out %s (%s)", len(erased), d.Name, label(rootdisk.ID(d)))
		}
	}
	return nil
}
