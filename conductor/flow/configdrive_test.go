package flow

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A deploy that asks for a config drive has the agent write it behind the
// image, with the node's id in it; one that does not asks the agent nothing.
func TestConfigDriveStep(t *testing.T) {
	for name, drive := range map[string]string{"none": "", "documents": `{"user_data":"x"}`} {
		t.Run(name, func(t *testing.T) {
			var told []string
			inBubble(t, func(c *conductortest.MachineConfig) {
				c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
					if cmd.GetName() == agentproto.CmdConfigDrive {
						told = append(told, string(cmd.GetArgs()))
					}
					return nil
				}
			}, func(r *rig) {
				r.start("p1")
				r.ready("p1")
				steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
				if err != nil {
					r.Fatal(err)
				}
				args := DeployArgs{Image: "http://images/a.raw", Checksum: checksum}
				if drive != "" {
					if args.ConfigDrive, err = json.Marshal(drive); err != nil {
						r.Fatal(err)
					}
				}
				f := &api.Flow{Id: "0f0e0d0c-0b0a-4908-8706-050403020100", NodeId: nodeID, Kind: api.FlowKind_FLOW_DEPLOY, Steps: steps}
				if f.Args, err = json.Marshal(args); err != nil {
					r.Fatal(err)
				}
				r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: f, Event: api.Event_EV_DEPLOY}}})
				r.idle(15 * time.Minute)
				r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
				var result string
				for _, s := range r.c.Store.View().Flow(nodeID).GetSteps() {
					if node.IDOf(s) == node.StepConfigDrive {
						result = string(s.GetResult())
					}
				}
				if drive == "" {
					if len(told) != 0 || !strings.Contains(result, "none was asked for") {
						r.Errorf("%q, %s", told, result)
					}
					return
				}
				if len(told) != 1 || !strings.Contains(told[0], nodeID) || !strings.Contains(told[0], "user_data") || !strings.Contains(result, "of-the-drive") {
					r.Errorf("%q, %s", told, result)
				}
			})
		})
	}
}

const driveURL = "http://joe:hunter2pw@drives/d.iso?sig=s3cr3t-signature"

func TestAddDriveCheck(t *testing.T) {
	for name, c := range map[string]struct {
		drive, checksum string
		looks           bool
		says            string
	}{
		"none":                 {"", "", false, ""},
		"documents":            {`{"user_data":"x"}`, "", false, ""},
		"https":                {`"https://h/d"`, "", true, ""},
		"https with checksum":  {`"https://h/d"`, checksum, true, ""},
		"http with checksum":   {`"http://h/d"`, checksum, true, ""},
		"http":                 {`"http://h/d"`, "", false, "over http"},
		"of none":              {"", checksum, false, "behind a URL only"},
		"of documents":         {`{"user_data":"x"}`, checksum, false, "behind a URL only"},
		"no checksum":          {`"https://h/d"`, "sha256:beef", false, "sha256:HEX or sha512:HEX"},
		"of an unknown kind":   {`"https://h/d"`, "md5:d41d8cd98f00b204e9800998ecf8427e", false, "sha256:HEX or sha512:HEX"},
		"of hex with too much": {`"https://h/d"`, checksum + "00", false, "sha256:HEX or sha512:HEX"},
	} {
		steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
		if err != nil {
			t.Fatal(err)
		}
		f := &api.Flow{Steps: steps}
		err = AddDriveCheck(f, DeployArgs{ConfigDrive: []byte(c.drive), ConfigDriveChecksum: c.checksum})
		if c.says != "" {
			if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.says) || len(f.Steps) != len(steps) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
			continue
		}
		if err != nil || (len(f.Steps) > len(steps)) != c.looks {
			t.Errorf("%s: %v, %d steps", name, err, len(f.Steps))
		}
	}
}

// deployDrive runs a deploy with a drive behind a URL and gives what the agent
// was asked for.
func deployDrive(t *testing.T, answer func(*api.AgentCommand) *api.CommandStatus, see func(r *rig, told map[string]string)) {
	told := map[string]string{}
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			told[cmd.GetName()] = string(cmd.GetArgs())
			return answer(cmd)
		}
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
		if err != nil {
			r.Fatal(err)
		}
		drive, err := json.Marshal(driveURL)
		if err != nil {
			r.Fatal(err)
		}
		args := DeployArgs{Image: "http://images/a.raw", Checksum: checksum, ConfigDrive: drive, ConfigDriveChecksum: checksum}
		f := &api.Flow{Id: "f", NodeId: nodeID, Kind: api.FlowKind_FLOW_DEPLOY, Steps: steps}
		if err := AddDriveCheck(f, args); err != nil {
			r.Fatal(err)
		}
		if f.Args, err = json.Marshal(args); err != nil {
			r.Fatal(err)
		}
		r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: f, Event: api.Event_EV_DEPLOY}}})
		r.idle(30 * time.Minute)
		see(r, told)
	})
}

// A drive that is not the one of the checksum ends the deploy before the disk
// is touched, and no secret of its URL comes back.
func TestDriveMismatch(t *testing.T) {
	deployDrive(t, func(cmd *api.AgentCommand) *api.CommandStatus {
		if cmd.GetName() != agentproto.CmdCheckDrive {
			return nil
		}
		return &api.CommandStatus{State: api.CommandStatus_FAILED, ErrorKind: errs.Invalid.String(), Error: "config drive " + driveURL + " is not the one that was asked for"}
	}, func(r *rig, told map[string]string) {
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		if told[agentproto.CmdWriteImage] != "" || told[agentproto.CmdConfigDrive] != "" {
			r.Error("the disk was written")
		}
		text := r.node().GetLastError()
		if !strings.Contains(text, "is not the one that was asked for") || strings.Contains(r.past()+text, "hunter2pw") || strings.Contains(r.past()+text, "s3cr3t") {
			r.Errorf("%q", text)
		}
	})
}

// The checksum goes to the agent both times; an agent that says nothing of it
// did not compare.
func TestDriveChecksum(t *testing.T) {
	pass := func(*api.AgentCommand) *api.CommandStatus { return nil }
	deployDrive(t, pass, func(r *rig, told map[string]string) {
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		for _, name := range []string{agentproto.CmdCheckDrive, agentproto.CmdConfigDrive} {
			if !strings.Contains(told[name], checksum) || !strings.Contains(told[name], "hunter2pw") {
				r.Errorf("%s was asked for with %s", name, told[name])
			}
		}
	})
	deployDrive(t, func(cmd *api.AgentCommand) *api.CommandStatus {
		if cmd.GetName() != agentproto.CmdCheckDrive {
			return nil
		}
		return &api.CommandStatus{State: api.CommandStatus_DONE, Result: []byte(`{"bytes":1}`)}
	}, func(r *rig, told map[string]string) {
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		if !strings.Contains(r.node().GetLastError(), "did not compare") || told[agentproto.CmdWriteImage] != "" {
			r.Errorf("%q", r.node().GetLastError())
		}
	})
}
