package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

// newNodeDeployCmd is deploy, or rebuild: the same work on a node that has been
// deployed before.
func newNodeDeployCmd(f *Factory, ev api.Event) *cobra.Command {
	flags := &deployFlags{}
	s := &fleet{f: f}
	ask := &asking{f: f, verb: ev, until: api.State_ACTIVE}
	cmd := deployHelp()
	if ev == api.Event_EV_REBUILD {
		ask.loses = "what is on the root disk"
		cmd = rebuildHelp()
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		data, err := flags.document(&values{f: f}, len(args) == 1 && s.where == "")
		if err != nil {
			return err
		}
		if flags.wipe {
			ask.loses = "what is on the root disk, whoever put it there"
		}
		ask.args = data
		return ask.run(ctx, c, s, cmd, args)
	})
	flags.register(cmd.Flags())
	s.register(cmd)
	ask.register(cmd)
	return cmd
}

// deployFlags say what a deploy writes, where to, and what must be seen of it.
type deployFlags struct {
	image, checksum, compress, format, source string

	drive    driveFlags
	evidence evidenceFlags
	hints    []string
	wipe     bool
}

func (d *deployFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&d.image, "image", "", "http or https `URL` of the image; @FILE, - or env:NAME for one with a user, a password or a signature")
	fl.StringVar(&d.checksum, "checksum", "", "`ALGORITHM:HEX` of the file as served: sha256 or sha512")
	fl.StringVar(&d.source, "image-source", "", "`WHERE` the agent gets it: http, its URL, or local, the peers, which download it once (default: as node and settings say)")
	fl.StringVar(&d.compress, "compress", "", "`FORMAT` of the file: gzip or zstd")
	fl.StringVar(&d.format, "image-format", "", "`FORMAT` of the image, raw or qcow2; if left out the file itself says it")
	d.drive.register(fl)
	d.evidence.register(fl)
	fl.StringArrayVar(&d.hints, "root-device", nil, "`HINT=VALUE` that chooses the disk; repeat it")
	fl.BoolVar(&d.wipe, "wipe-existing", false, "also write to a disk with data that Ironring did not put there")
}

// document is the arguments of the deploy, in JSON; one says that a single node
// is meant. Of what was not given nothing stands there, for the cluster to say
// what is missing.
func (d *deployFlags) document(v *values, one bool) ([]byte, error) {
	doc := map[string]any{}
	for k, v := range map[string]string{"checksum": d.checksum, "compress": d.compress, "image_format": d.format, "image_download_source": d.source} {
		if v != "" {
			doc[k] = v
		}
	}
	if d.image != "" {
		text, err := v.url("image", d.image)
		if err != nil {
			return nil, err
		}
		doc["image"] = text
	}
	root, err := v.document("root-device", d.hints)
	if err != nil {
		return nil, err
	}
	if root != nil {
		doc["root_device"] = json.RawMessage(root)
	}
	if err := d.drive.into(doc, v); err != nil {
		return nil, err
	}
	if err := d.evidence.into(doc, v, one); err != nil {
		return nil, err
	}
	if d.wipe {
		doc["wipe_existing"] = true
	}
	return json.Marshal(doc)
}

// deployHelp is what the help of deploy says.
func deployHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "deploy NODE... --image URL --checksum ALGORITHM:HEX",
		Short: "Write an image to the node's disk and boot it",
		Long: `Write an image to the root disk of an available node and boot it from there.

With more than one disk that could be meant, the deployment is refused before a
byte is written, and the error lists the disks and the --root-device to give.
Hints are serial, wwn, name, model, vendor, size (GiB), rotational, hctl,
by_path, tran; values may begin with an operator, such as size=">= 100".

Where the chosen disk holds data that Ironring did not put there, or cannot be
read, nothing is written: the deployment fails and names the disk, and
--wipe-existing must be given.

A config drive is what cloud-init reads at the first boot. It goes onto a
partition of its own at the end of the disk.

` + deploySecretsHelp,
		Example: `  ironring node deploy n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait
  ironring node deploy n1 --image https://images/debian.raw.zst --compress zstd --checksum sha256:fcde2b2e... --root-device serial=S4EVNX0R
  ironring node deploy n1 --image https://images/debian.qcow2 --checksum sha256:9f86d081... --user-data cloud-config.yaml
  ironring node deploy n1 --image @signed-url.txt --checksum sha256:9f86d081... --evidence phone_home --phone-home-token @token.txt
  ironring node deploy n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --config-drive http://drives/n1.iso --config-drive-checksum sha256:baa5a096...`,
	}
}

// rebuildHelp is what the help of rebuild says.
func rebuildHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "rebuild NODE... --image URL --checksum ALGORITHM:HEX",
		Short: "Write an image to a deployed node and boot it",
		Long: `Write an image to the root disk of a node that is active, or whose deployment
failed, and boot it from there. What the disk holds is lost; where Ironring did
not put it there, only with --wipe-existing.

The image and the hints are given anew; they mean the same as with deploy.

` + deploySecretsHelp,
		Example: "  ironring node rebuild n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait",
	}
}
