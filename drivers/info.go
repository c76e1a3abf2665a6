package drivers

import (
	"encoding/json"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Info is a node's driver_info, unsealed. Its values are what encoding/json
// makes of it; numbers and booleans may also be written as strings, as Ironic
// allows.
type Info map[string]any

// LogValue keeps secrets out of logs: only the keys are shown.
func (i Info) LogValue() slog.Value {
	keys := make([]string, 0, len(i))
	for k := range i {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return slog.StringValue("keys:" + strings.Join(keys, ","))
}

// String keeps secrets out of texts made with %v.
func (i Info) String() string { return i.LogValue().String() }

// GoString keeps secrets out of texts made with %#v.
func (i Info) GoString() string { return i.String() }

// Text is the value of a key as text; missing and null are "". A number is
// given as it would be written.
func (i Info) Text(key string) (string, error) {
	switch v := i[key].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case int:
		return strconv.Itoa(v), nil
	}
	return "", errs.About(errs.Invalid, key, "driver_info %s must be a string", key)
}

// Int is the value of a key as an integer from min to max, def when missing.
func (i Info) Int(key string, def, min, max int) (int, error) {
	n := math.NaN()
	switch v := i[key].(type) {
	case nil:
		return def, nil
	case string:
		if v == "" {
			return def, nil
		}
		if p, err := strconv.Atoi(v); err == nil {
			n = float64(p)
		}
	case json.Number:
		if p, err := strconv.Atoi(v.String()); err == nil {
			n = float64(p)
		}
	case float64:
		n = v
	case int:
		n = float64(v)
	}
	if math.IsNaN(n) || n != math.Trunc(n) || n < float64(min) || n > float64(max) {
		return 0, errs.About(errs.Invalid, key, "driver_info %s must be a number from %d to %d", key, min, max)
	}
	return int(n), nil
}

// CheckFields applies the rules that all drivers share: required keys are
// there, and no key that starts with the driver's prefix is unknown, which
// would be a typing error. Keys of others, such as deploy_kernel, pass.
func (i Info) CheckFields(prefix string, fields []Field) error {
	known := make([]string, 0, len(fields))
	for _, f := range fields {
		known = append(known, f.Name)
		if !f.Required {
			continue
		}
		if v, ok := i[f.Name]; !ok || v == nil || v == "" {
			return errs.About(errs.Invalid, f.Name, "driver_info lacks %s (%s)", f.Name, f.Help)
		}
	}
	keys := make([]string, 0, len(i))
	for k := range i {
		if strings.HasPrefix(k, prefix) && !slices.Contains(known, k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	return errs.About(errs.Invalid, keys[0], "driver_info %s is not supported, known are: %s",
		keys[0], strings.Join(known, ", "))
}
