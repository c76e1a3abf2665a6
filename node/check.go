package node

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of a record, in bytes unless said otherwise.
const (
	MaxDocument      = 64 << 10 // each of driver_info, properties, extra, instance_info
	MaxName          = 255
	MaxDescription   = 4096
	MaxReason        = 4096 // maintenance_reason
	MaxResourceClass = 80
)

// NormalizeSpec brings the spec fields into the form in which they are stored:
// documents canonical ("{}" where there is none), conductor group lower case.
// It does not replace CheckSpec.
func NormalizeSpec(n *api.Node) error {
	n.ConductorGroup = strings.ToLower(n.ConductorGroup)
	for _, d := range Documents {
		doc, err := canon.Object(*d.Of(n), MaxDocument)
		if err != nil {
			return fieldError(d.Field, err)
		}
		*d.Of(n) = doc
	}
	return nil
}

// CheckSpec holds the rules for the id and the spec fields of a record.
// Documents may be empty; the error names the field at fault as its subject.
func CheckSpec(n *api.Node) error {
	for _, d := range Documents {
		if _, err := canon.Object(*d.Of(n), MaxDocument); err != nil {
			return fieldError(d.Field, err)
		}
	}
	return CheckFlatSpec(n)
}

// CheckFlatSpec is CheckSpec without the documents, for who has just brought
// them into canonical form.
func CheckFlatSpec(n *api.Node) error {
	if !ValidID(n.GetId()) {
		return invalid("id", "%q is not a UUID in lower case", errs.Clip(n.GetId()))
	}
	if n.GetName() != "" {
		if err := ValidName(n.GetName()); err != nil {
			return err
		}
	}
	if err := ValidDriverName(n.GetDriver()); err != nil {
		return err
	}
	if err := ValidGroup(n.GetConductorGroup()); err != nil {
		return err
	}
	for _, text := range []struct {
		field, value string
		limit        int
	}{
		{"description", n.GetDescription(), MaxDescription},
		{"maintenance_reason", n.GetMaintenanceReason(), MaxReason},
		{"resource_class", n.GetResourceClass(), MaxResourceClass},
	} {
		if err := checkText(text.field, text.value, text.limit); err != nil {
			return err
		}
	}
	if n.GetMaintenanceReason() != "" && !n.GetMaintenance() {
		return invalid("maintenance_reason", "there is a reason, but the node is not in maintenance")
	}
	return nil
}

// reservedNames are the words that follow /v1/nodes/ or a node in a path.
var reservedNames = map[string]bool{
	"allocation": true, "bios": true, "boot_device": true, "boot_mode": true,
	"children": true, "console": true, "detail": true, "firmware": true,
	"heartbeat": true, "history": true, "indicators": true, "inject_nmi": true,
	"inventory": true, "lookup": true, "maintenance": true, "management": true,
	"portgroups": true, "ports": true, "power": true, "provision": true,
	"raid": true, "secure_boot": true, "states": true, "traits": true,
	"validate": true, "vendor_passthru": true, "vifs": true, "vmedia": true,
	"volume": true,
}

// ValidName is the rule for a node's name: 1 to 255 of RFC 3986's unreserved
// characters, not a UUID and not a word that has a meaning in a path.
func ValidName(name string) error {
	switch {
	case name == "" || len(name) > MaxName:
		return invalid("name", "a name has 1 to %d characters, not %d", MaxName, len(name))
	case !only(name, "-._~"):
		return invalid("name", "%q: a name has letters, digits, '-', '.', '_' and '~' only", errs.Clip(name))
	case looksLikeUUID(name):
		return invalid("name", "%q looks like a UUID", name)
	case name == "." || name == ".." || reservedNames[strings.ToLower(name)]:
		return invalid("name", "%q is a reserved word", name)
	}
	return nil
}

// ValidGroup is the rule for a conductor group: lower-case letters, digits,
// '-', '.', '_'; the empty string is the default group.
func ValidGroup(group string) error {
	switch {
	case len(group) > MaxName:
		return invalid("conductor_group", "a group has at most %d characters, not %d", MaxName, len(group))
	case !only(group, "-._"):
		return invalid("conductor_group", "%q: a group has letters, digits, '-', '.' and '_' only", errs.Clip(group))
	case group != strings.ToLower(group):
		return invalid("conductor_group", "%q is not lower case", group)
	}
	return nil
}

// ValidDriverName is the rule for the form of a driver's name. Whether there
// is such a driver is for the registry of drivers to say.
func ValidDriverName(name string) error {
	switch {
	case name == "":
		return invalid("driver", "a node needs a driver")
	case len(name) > MaxName:
		return invalid("driver", "a driver's name has at most %d characters, not %d", MaxName, len(name))
	case !only(name, "-._") || name != strings.ToLower(name):
		return invalid("driver", "%q: a driver's name has lower-case letters, digits, '-', '.' and '_' only", errs.Clip(name))
	}
	return nil
}

// ValidID reports whether s is a UUID as records have it: lower case, 8-4-4-4-12.
func ValidID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') {
			return false
		} else if !dash && !strings.Contains("0123456789abcdef", s[i:i+1]) {
			return false
		}
	}
	return true
}

// looksLikeUUID: 32 hex digits however they are divided. Such a name could be
// taken for an id.
func looksLikeUUID(s string) bool {
	digits := 0
	for _, c := range strings.ToLower(s) {
		switch {
		case c == '-':
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
			digits++
		default:
			return false
		}
	}
	return digits == 32
}

// only reports whether s has ASCII letters, digits and the extra characters.
func only(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte(extra, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// checkText bounds a text for people; it has no control characters but line
// breaks and tabs, which would otherwise reach terminals and logs.
func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return invalid(field, "at most %d bytes are allowed, not %d", limit, len(s))
	}
	if !utf8.ValidString(s) {
		return invalid(field, "the text is not valid UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			return invalid(field, "the text has a control character (%U)", r)
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return errs.About(errs.Invalid, field, field+": "+format, args...)
}

func fieldError(field string, err error) error {
	return errs.About(errs.KindOf(err), field, "%s: %w", field, err)
}
