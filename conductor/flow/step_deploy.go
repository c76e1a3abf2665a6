package flow

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// DeployArgs are what a deploy is asked for with.
type DeployArgs struct {
	// Image is an http or https URL; sealed where it has secret parts.
	Image string `json:"image"`
	// ImageShown is what people see of a sealed Image; not taken from requests.
	ImageShown string `json:"image_shown,omitempty"`
	// Checksum is over the file as served: "sha256:HEX" or "sha512:HEX".
	Checksum string `json:"checksum"`
	// Source is "http", the image's URL, or "local", the peers, which download
	// it once; "": as node and settings say.
	Source string `json:"image_download_source,omitempty"`
	// Compress is "", "gzip" or "zstd".
	Compress string `json:"compress,omitempty"`
	// ImageFormat is "raw", "qcow2", or "": the file itself says.
	ImageFormat string `json:"image_format,omitempty"`
	// ConfigDrive is what package configdrive reads. The service keeps it as a
	// sealed string.
	ConfigDrive json.RawMessage `json:"config_drive,omitempty"`
	// ConfigDriveChecksum is over the file behind the URL of a config drive, as
	// Checksum is; required where that is http.
	ConfigDriveChecksum string `json:"config_drive_checksum,omitempty"`
	// Evidence is what must be seen before the node is active, see
	// ParseEvidence; EvidenceTimeout is in seconds, 0: 20 minutes.
	Evidence        string `json:"evidence,omitempty"`
	EvidenceTimeout int    `json:"evidence_timeout,omitempty"`
	// PhoneHomeToken is part of the URL that the system calls; "": one is made,
	// for the config drive.
	PhoneHomeToken string `json:"phone_home_token,omitempty"`
	// RootDevice are root device hints; they go before those of the node.
	RootDevice json.RawMessage `json:"root_device,omitempty"`
	// WipeExisting says that what other hands left on the chosen disk may go.
	WipeExisting bool `json:"wipe_existing,omitempty"`
}

// AAD is what seals a flow's arguments to its node.
func AAD(node string) string { return "node/" + node + "/flow" }

func (r *runner) deployArgs(f *api.Flow) (DeployArgs, error) {
	doc, err := r.cfg.Keyring.OpenDoc(AAD(r.node), f.GetArgs())
	if err != nil {
		return DeployArgs{}, fmt.Errorf("arguments of the deploy: %w", err)
	}
	var a DeployArgs
	if err := json.Unmarshal(doc, &a); err != nil {
		return DeployArgs{}, errs.New(errs.Invalid, "arguments of the deploy: %w", err)
	}
	return a, nil
}

// chooseDisk commits which disk gets the image, before the first byte. It
// refuses one that holds what this cluster did not put there.
func (r *runner) chooseDisk(_ context.Context, p position) (outcome, error) {
	inv, err := r.stored()
	if err != nil {
		return outcome{}, err
	}
	args, err := r.deployArgs(p.flow)
	if err != nil {
		return outcome{}, err
	}
	n := r.cfg.Store.View().Node(r.node)
	hints, err := rootHints(args.RootDevice, n.GetInstanceInfo(), n.GetProperties())
	if err != nil {
		return outcome{}, err
	}
	d, err := rootdisk.Choose(inv.Disks, hints, rootdisk.Options{})
	if err != nil {
		return outcome{}, err
	}
	if err := r.mayWrite(p, args, inv, d); err != nil {
		return outcome{}, err
	}
	chosen := chosenDisk(n.GetRootDisk(), d, inv.Disks, p.flow.GetId())
	evidence, err := r.newEvidence(p.flow, args)
	if err != nil {
		return outcome{}, err
	}
	return outcome{
		result: map[string]any{"name": d.Name, "serial": d.Serial, "wwn": d.WWN, "size_bytes": d.SizeBytes},
		ops:    []*api.Op{r.write(p.flow, []string{"root_disk", "evidence"}, &api.Node{RootDisk: chosen, Evidence: evidence})},
	}, nil
}

// rootHints finds the hints that count: of the request, else of instance_info,
// else of properties (Ironic's order).
func rootHints(request json.RawMessage, docs ...[]byte) (json.RawMessage, error) {
	if len(request) > 0 && string(request) != "null" {
		return request, nil
	}
	for _, doc := range docs {
		var d struct {
			RootDevice json.RawMessage `json:"root_device"`
		}
		if len(doc) == 0 {
			continue
		}
		if err := json.Unmarshal(doc, &d); err != nil {
			return nil, errs.New(errs.Invalid, "root device hints: %w", err)
		}
		if len(d.RootDevice) > 0 && string(d.RootDevice) != "null" {
			return d.RootDevice, nil
		}
	}
	return nil, nil
}

// writeImage has the agent write the image to the committed disk.
func (r *runner) writeImage(ctx context.Context, p position) (outcome, error) {
	args, err := r.deployArgs(p.flow)
	if err != nil {
		return outcome{}, err
	}
	disk, err := r.judgedDisk()
	if err != nil {
		return outcome{}, err
	}
	secrets := secretsOf(args.Image)
	urls, err := r.imageURLs(ctx, p, args)
	if err != nil {
		return outcome{}, scrub(err, secrets)
	}
	// First the record: what is found on the disk from here on may be this image.
	if begun := begins(r.cfg.Store.View().Node(r.node).GetRootDisk(), p.flow.GetCmdId()); begun != nil {
		if _, err := r.commit(ctx, "the image is about to be written", r.write(p.flow, []string{"root_disk"}, &api.Node{RootDisk: begun})); err != nil {
			return outcome{}, err
		}
	}
	var res agentproto.WriteImageResult
	if err := r.command(ctx, p, agentproto.CmdWriteImage, agentproto.WriteImageArgs{
		URLs: urls, Format: args.ImageFormat, Compress: args.Compress, Checksum: args.Checksum, Disk: disk,
	}, &res, secrets...); err != nil {
		return outcome{}, scrub(err, secrets)
	}
	if res.ContentDigest == "" || res.ContentDigest != res.WrittenDigest {
		return outcome{}, errs.About(errs.Internal, r.node, "the disk %s gave back other bytes than were written to it", disk.Name)
	}
	written := proto.CloneOf(r.cfg.Store.View().Node(r.node).GetRootDisk())
	written.Written, written.BegunCmd, written.Handed = true, "", true
	return outcome{result: res, ops: []*api.Op{r.write(p.flow, []string{"root_disk"}, &api.Node{RootDisk: written})}}, nil
}

// rootDisk is the disk that this flow committed.
func (r *runner) rootDisk() (agentproto.DiskID, error) {
	d := r.cfg.Store.View().Node(r.node).GetRootDisk()
	if d == nil {
		return agentproto.DiskID{}, errs.About(errs.Conflict, r.node, "no root disk has been chosen for node %s", r.node)
	}
	return rootID(d), nil
}

// judgedDisk is the disk that this flow committed, with what lay on it when it
// did: the agent writes only where that is so still.
func (r *runner) judgedDisk() (agentproto.JudgedDisk, error) {
	id, err := r.rootDisk()
	if err != nil {
		return agentproto.JudgedDisk{}, err
	}
	inv, err := r.stored()
	if err != nil {
		return agentproto.JudgedDisk{}, err
	}
	d, err := rootdisk.Match(id, inv.Disks)
	return agentproto.JudgedDisk{DiskID: id, Contents: d.Contents}, err
}

// bootEntry sees that the firmware will boot the disk, and reads it back.
func (r *runner) bootEntry(ctx context.Context, p position) (outcome, error) {
	disk, err := r.rootDisk()
	if err != nil {
		return outcome{}, err
	}
	var res agentproto.BootEntryResult
	if err := r.command(ctx, p, agentproto.CmdBootEntry, agentproto.BootEntryArgs{Disk: disk}, &res); err != nil {
		return outcome{}, err
	}
	op, err := r.entryRead(p.flow, res)
	if err != nil {
		return outcome{}, err
	}
	return outcome{result: res, ops: []*api.Op{op}}, nil
}
