package service

import (
	"encoding/json"

	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
)

// driveAsText checks a config drive and gives it as one string, so that it is
// sealed as a whole; nil where there is none.
func driveAsText(drive json.RawMessage) (json.RawMessage, error) {
	d, err := configdrive.Parse(drive)
	if err != nil {
		return nil, errs.About(errs.Invalid, "config_drive", "config_drive: %w", err)
	}
	if d == nil {
		return nil, nil
	}
	return json.Marshal(d.Text())
}

// checkFormat refuses an image that the agent would refuse.
func checkFormat(a flow.DeployArgs) error {
	switch a.ImageFormat {
	case "", "raw":
	case "qcow2":
		if a.Compress != "" {
			return errs.About(errs.Invalid, "image_format", "image_format: a qcow2 file must be served as it is, not inside %s", a.Compress)
		}
	default:
		return errs.About(errs.Invalid, "image_format", "image_format: raw, qcow2 or nothing, not %q", a.ImageFormat)
	}
	return nil
}
