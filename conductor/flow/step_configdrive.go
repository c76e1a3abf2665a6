package flow

import (
	"context"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
)

// configDrive has the agent put the config drive on the disk, where one was
// asked for. Whoever resumes asks for the same command; and the agent of
// another boot recognises a drive that is there. The drive may hold secrets: no
// result and no error has any of it.
func (r *runner) configDrive(ctx context.Context, p position) (outcome, error) {
	args, err := r.deployArgs(p.flow)
	if err != nil {
		return outcome{}, err
	}
	d, err := configdrive.Parse(args.ConfigDrive)
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
	var res agentproto.ConfigDriveResult
	if err := r.command(ctx, p, agentproto.CmdConfigDrive, agentproto.ConfigDriveArgs{
		Drive: d.Text(), Defaults: defaults, Disk: disk,
	}, &res); err != nil {
		return outcome{}, err
	}
	if res.Digest == "" {
		return outcome{}, errs.About(errs.Internal, r.node, "the agent does not say which config drive it wrote")
	}
	return outcome{result: res}, nil
}
