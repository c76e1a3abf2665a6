package fsm

import (
	"unicode/utf8"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Bounds of records. They are part of the replicated format: raising one needs
// a feature level.
const (
	maxID        = 128
	maxText      = 1024             // reasons, descriptions and the like are cut or refused here
	maxError     = 4096             // errors of flows and nodes are cut
	maxDocument  = node.MaxDocument // driver_info, properties, extra, instance_info, flow args
	maxResult    = 16 << 10         // result of a step
	maxInventory = 128 << 10        // what an agent found
	maxSteps     = 256
	maxList      = 1000 // assignments in a command, join tokens, networks, strings in a list
)

// checkID refuses what cannot be a key: empty, long, or with anything but
// printable ASCII other than space and slash.
func checkID(what, id string) error { return checkKey(what, id, maxID) }

func checkKey(what, id string, most int) error {
	if id == "" {
		return errs.About(errs.Invalid, what, "%s is empty", what)
	}
	if err := checkSize(what, len(id), most); err != nil {
		return err
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '/' {
			return errs.About(errs.Invalid, what, "%s %q has a character that is not allowed", what, id)
		}
	}
	return nil
}

// checkUUID accepts lower-case UUIDs of any version.
func checkUUID(what, id string) error {
	if !node.ValidID(id) {
		return errs.About(errs.Invalid, what, "%s %q is not a lower-case UUID", what, clip(id, maxID))
	}
	return nil
}

func checkSize(what string, size, most int) error {
	if size > most {
		return errs.About(errs.Invalid, what, "%s has %d bytes, at most %d", what, size, most)
	}
	return nil
}

// checkSpec bounds the spec fields. Whether their values make sense was
// checked before the command was proposed, by rules that may change.
func checkSpec(n *api.Node) error {
	for _, f := range []struct {
		name string
		size int
		most int
	}{
		{"name", len(n.GetName()), 255},
		{"driver", len(n.GetDriver()), 255},
		{"driver_info", len(n.GetDriverInfo()), maxDocument},
		{"properties", len(n.GetProperties()), maxDocument},
		{"extra", len(n.GetExtra()), maxDocument},
		{"instance_info", len(n.GetInstanceInfo()), maxDocument},
		{"conductor_group", len(n.GetConductorGroup()), 255},
		{"description", len(n.GetDescription()), 4096},
		{"maintenance_reason", len(n.GetMaintenanceReason()), 4096},
		{"resource_class", len(n.GetResourceClass()), 255},
	} {
		if err := checkSize(f.name, f.size, f.most); err != nil {
			return err
		}
	}
	if n.GetName() != "" {
		return checkKey("name", n.GetName(), 255)
	}
	return nil
}

// clip cuts text to a number of bytes, at a character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}
