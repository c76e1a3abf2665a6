package flow

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// maxToldDisks bounds the result of a clean: a step's result is replicated.
const maxToldDisks = 64

// eraseMetadata wipes partition tables and signatures of every disk of the
// machine that may be written at all, members of RAIDs included. The agent is
// given the list of those that the inventory has and that mayErase has judged:
// when it finds others it erases nothing. Which disks are never written, and
// why, is in the step's result. The data remains, and the record says so.
func (r *runner) eraseMetadata(ctx context.Context, p position) (outcome, error) {
	inv, err := r.stored()
	if err != nil {
		return outcome{}, err
	}
	if err := r.mayErase(p, inv); err != nil {
		return outcome{}, err
	}
	var res agentproto.EraseResult
	args := agentproto.EraseArgs{Disks: rootdisk.Judge(inv.Disks)}
	if err := r.command(ctx, p, agentproto.CmdEraseMetadata, args, &res); err != nil {
		if errors.Is(err, agents.ErrFailed) && errors.Is(err, errs.Denied) {
			return outcome{}, fmt.Errorf("%w. To have the disks looked at as they are now, and be asked about them: %s", err, cleanAgain(r.cfg.Store.View().Node(r.node), ""))
		}
		return outcome{}, err
	}
	if err := erasedAll(args.Disks, res.Disks); err != nil {
		return outcome{}, errs.About(errs.Internal, r.node, "%w", err)
	}
	erased := &api.Erasure{Level: api.Erasure_METADATA, DoneMs: r.cfg.Clock.Now().UnixMilli(), FlowId: p.flow.GetId(), Erased: records(inv.Disks, res.Disks)}
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

// maxRecords bounds what a node keeps of erased disks. Those that do not fit
// are asked about the next time.
const maxRecords = 32 << 10

// records are the erased disks with all that they are known by.
func records(inventory []agentproto.Disk, erased []agentproto.ErasedDisk) []*api.DiskRecord {
	models := map[agentproto.DiskID]string{}
	for _, d := range inventory {
		models[nameless(rootdisk.ID(d))] = d.Model
	}
	var out []*api.DiskRecord
	size := 0
	for _, d := range erased {
		rec := &api.DiskRecord{Name: d.Name, Serial: d.Serial, Wwn: d.WWN, ByPath: d.ByPath, Model: models[nameless(d.DiskID)], SizeBytes: d.SizeBytes}
		if size += proto.Size(rec); size > maxRecords {
			break
		}
		out = append(out, rec)
	}
	return out
}

// nameless is a disk's identity without its name, which may be another one since.
func nameless(id agentproto.DiskID) agentproto.DiskID {
	id.Name = ""
	return id
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

// erasedAll checks that just the listed disks were erased.
func erasedAll(list []agentproto.JudgedDisk, erased []agentproto.ErasedDisk) error {
	left := map[agentproto.DiskID]int{}
	for _, d := range list {
		left[nameless(d.DiskID)]++
	}
	for _, d := range erased {
		if left[nameless(d.DiskID)]--; left[nameless(d.DiskID)] < 0 {
			return fmt.Errorf("the agent erased %s (%s), which it was not told to erase", d.Name, label(d.DiskID))
		}
	}
	for _, d := range list {
		if left[nameless(d.DiskID)] > 0 {
			return fmt.Errorf("the agent erased %d disks and left out %s (%s)", len(erased), d.Name, label(d.DiskID))
		}
	}
	return nil
}
