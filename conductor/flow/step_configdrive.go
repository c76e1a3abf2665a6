package flow

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A config drive behind a URL is what the deployed system does as root: the
// agent compares it with the checksum of the request, once before the disk is
// touched and again when it writes it. Only TLS can stand in for a checksum.

// CheckChecksum refuses what is not "sha256:HEX" or "sha512:HEX".
func CheckChecksum(field, text string) error {
	algo, sum, _ := strings.Cut(text, ":")
	want := map[string]int{"sha256": 32, "sha512": 64}[algo]
	if raw, err := hex.DecodeString(sum); want == 0 || err != nil || len(raw) != want {
		return errs.About(errs.Invalid, field, "%s: sha256:HEX or sha512:HEX of the file as served is needed", field)
	}
	return nil
}

// AddDriveCheck checks what a deploy says of a config drive behind a URL, and
// has the flow look at it before anything is written.
func AddDriveCheck(f *api.Flow, a DeployArgs) error {
	const field = "config_drive_checksum"
	d, err := configdrive.Parse(a.ConfigDrive)
	switch {
	case err != nil:
		return errs.About(errs.Invalid, "config_drive", "config_drive: %w", err)
	case (d == nil || d.URL == "") && a.ConfigDriveChecksum != "":
		return errs.About(errs.Invalid, field, "%s is of use with a config drive behind a URL only", field)
	case d == nil || d.URL == "":
		return nil
	case a.ConfigDriveChecksum == "" && strings.HasPrefix(d.URL, "http://"):
		return errs.About(errs.Invalid, field, "%s: sha256:HEX or sha512:HEX of the file as served is needed for a config drive over http, where anybody on the way could give another; or serve it over https", field)
	case a.ConfigDriveChecksum != "":
		if err := CheckChecksum(field, a.ConfigDriveChecksum); err != nil {
			return err
		}
	}
	step, err := node.NewStep(node.StepCheckDrive, nil)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(f.GetSteps(), func(s *api.Step) bool { return node.IDOf(s) == node.StepWriteImage })
	if at < 0 {
		return errs.New(errs.Internal, "the plan writes no image")
	}
	f.Steps = slices.Insert(f.Steps, at, step)
	return nil
}

// checkDrive has the agent look at the config drive behind a URL.
func (r *runner) checkDrive(ctx context.Context, p position) (outcome, error) {
	args, d, err := r.drive(p.flow)
	if err != nil {
		return outcome{}, err
	}
	if d == nil || d.URL == "" {
		return outcome{}, errs.About(errs.Internal, r.node, "there is no config drive to look at")
	}
	secrets := secretsOf(d.URL)
	var res agentproto.CheckDriveResult
	if err := r.command(ctx, p, agentproto.CmdCheckDrive, agentproto.CheckDriveArgs{
		Drive: d.Text(), Checksum: args.ConfigDriveChecksum,
	}, &res, secrets...); err != nil {
		return outcome{}, scrub(err, secrets)
	}
	if err := compared(args, res.Checksum); err != nil {
		return outcome{}, err
	}
	return outcome{result: res}, nil
}

// configDrive has the agent put the config drive on the disk, where one was
// asked for. Whoever resumes asks for the same command; and the agent of
// another boot recognises a drive that is there. The drive may hold secrets: no
// result and no error has any of it.
func (r *runner) configDrive(ctx context.Context, p position) (outcome, error) {
	args, d, err := r.drive(p.flow)
	if err != nil {
		return outcome{}, err
	}
	if d == nil {
		return outcome{result: map[string]any{"config_drive": "none was asked for"}}, nil
	}
	disk, err := r.rootDisk()
	if err != nil {
		return outcome{}, err
	}
	n := r.cfg.Store.View().Node(r.node)
	defaults := map[string]string{"uuid": n.GetId(), "name": n.GetName()}
	if urls := phoneHomeURLs(r.cfg.Store.View(), args.PhoneHomeToken); len(urls) > 0 {
		defaults["phone_home_urls"] = strings.Join(urls, " ")
	}
	secrets := secretsOf(d.URL)
	var res agentproto.ConfigDriveResult
	if err := r.command(ctx, p, agentproto.CmdConfigDrive, agentproto.ConfigDriveArgs{
		Drive: d.Text(), Checksum: args.ConfigDriveChecksum, Defaults: defaults, Disk: disk,
	}, &res, secrets...); err != nil {
		return outcome{}, scrub(err, secrets)
	}
	if res.Digest == "" {
		return outcome{}, errs.About(errs.Internal, r.node, "the agent does not say which config drive it wrote")
	}
	if err := compared(args, res.Checksum); err != nil {
		return outcome{}, err
	}
	return outcome{result: res}, nil
}

// drive is the config drive of a deploy, nil where there is none.
func (r *runner) drive(f *api.Flow) (DeployArgs, *configdrive.Drive, error) {
	args, err := r.deployArgs(f)
	if err != nil {
		return args, nil, err
	}
	d, err := configdrive.Parse(args.ConfigDrive)
	return args, d, err
}

// compared refuses the word of an agent that did not look at the checksum.
func compared(args DeployArgs, checksum string) error {
	if checksum != args.ConfigDriveChecksum {
		return errs.New(errs.Unsupported, "the agent did not compare the config drive with its checksum: its ramdisk is older than this peer; publish a newer one")
	}
	return nil
}
