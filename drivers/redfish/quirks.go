package redfish

import (
	"encoding/json"
	"strconv"
	"strings"
)

// behaviour is what a BMC does otherwise than Redfish says, or needs beyond it.
type behaviour uint

const (
	// sendETag: a PATCH must name the version that it changes (If-Match).
	sendETag behaviour = 1 << iota
	// bareETag: the ETag is compared without the W/ that it is given with.
	bareETag
	// settingsBoot: the boot override is written to @Redfish.Settings.
	settingsBoot
	// persistBoot: an override for one boot is lost before that boot, so that
	// it is set for all boots; a deployment ends with the disk for all boots.
	persistBoot
	// waitReset: 409 for a while after a change of power.
	waitReset
	// omitMode: BootSourceOverrideMode may not be written.
	omitMode
	// withMode: BootSourceOverrideMode falls back to its default when it is
	// not written along.
	withMode
	// keepTarget: an override cannot be disabled with the target None.
	keepTarget
	// staleImage: an ejected medium keeps its image; ConnectedVia tells.
	staleImage
)

func (b behaviour) has(f behaviour) bool { return b&f != 0 }

// The makers of BMC firmware that we tell apart.
const (
	dell       = "Dell"
	hpe        = "HPE"
	supermicro = "Supermicro"
	lenovo     = "Lenovo"
	openBMC    = "OpenBMC"
	ami        = "AMI"
)

// quirk is one row: which BMCs, and what is different about them.
type quirk struct {
	name   string
	vendor string // "": any
	model  string // part of the machine's model, "": any
	from   string // first firmware of the BMC, "": any
	below  string // first firmware without it, "": none
	does   behaviour
}

// quirks are all the differences that we know. Rows without a behaviour are
// met by how every BMC is treated; they stand here with the test that shows it
// (quirks_test.go has one for each name).
var quirks = []quirk{
	// AMI MegaRAC answers OperationSupportedInFutureStateURI to an override on
	// the system, and 428 to a PATCH without If-Match.
	{name: "ami-settings-resource", vendor: ami, does: settingsBoot},
	{name: "ami-etag-needed", vendor: ami, does: sendETag},
	// Gigabyte's early builds of it compare the ETag without W/.
	{name: "gigabyte-bare-etag", vendor: ami, model: "Gigabyte", does: bareETag},

	// XCC compares If-Match, and 412 is its answer when there is none.
	{name: "lenovo-412-on-if-match", vendor: lenovo, does: sendETag},

	// iLO has BootSourceOverrideMode read-only, and refuses to disable an
	// override whose target is None.
	{name: "hpe-mode-read-only", vendor: hpe, does: omitMode},
	{name: "hpe-disable-keeps-target", vendor: hpe, does: keepTarget},

	// iDRAC answers 409 to a reset while the one before is being done, and to
	// one for what already is.
	{name: "dell-409-after-power-off", vendor: dell, does: waitReset},
	{name: "hpe-409-after-power-off", vendor: hpe, does: waitReset},

	// Supermicro forgets the mode unless it is written along; machines of X10
	// and X11 with early firmware boot from the disk despite "Once".
	{name: "supermicro-mode-along", vendor: supermicro, does: withMode},
	{name: "supermicro-once-lost-x10", vendor: supermicro, model: "X10", does: persistBoot},
	{name: "supermicro-once-lost-x11", vendor: supermicro, model: "X11", below: "1.74", does: persistBoot},
	{name: "supermicro-stale-image", vendor: supermicro, does: staleImage},

	// OpenBMC's bmcweb wants a JSON object with every POST, and its system is
	// called "system"; iDRAC's "System.Embedded.1", AMI's "Self".
	{name: "openbmc-post-wants-object", vendor: openBMC},
	{name: "system-id-is-not-1"},
	// Some allow no more than four sessions: we have two at most, and log out.
	{name: "four-sessions"},
	// Some accept an override with 204 and do nothing: reading says so.
	{name: "204-without-effect"},
}

// identity is what a BMC is known by.
type identity struct{ vendor, model, firmware string }

// behaviour gathers the rows for the BMC. Its firmware is read only where a row
// asks for it.
func (l *link) behaviour(s *system) (behaviour, error) {
	id := identity{vendor: vendorOf(l.root, s), model: s.Model}
	if strings.Contains(strings.ToLower(s.Manufacturer), "gigabyte") {
		id.model = "Gigabyte " + s.Model
	}
	q, versions := id.behaviour()
	if !versions {
		return q, nil
	}
	managers, err := l.managers()
	if err != nil {
		return q, err
	}
	if len(managers) > 0 {
		id.firmware = managers[0].FirmwareVersion
	}
	q, _ = id.behaviour()
	return q, nil
}

// behaviour is what the rows say; versions is true when the firmware decides
// and is not known.
func (id identity) behaviour() (q behaviour, versions bool) {
	for _, r := range quirks {
		switch {
		case r.vendor != "" && r.vendor != id.vendor, !strings.Contains(strings.ToLower(id.model), strings.ToLower(r.model)):
		case (r.from != "" || r.below != "") && id.firmware == "":
			versions = true
		case r.from != "" && older(id.firmware, r.from), r.below != "" && !older(id.firmware, r.below):
		default:
			q |= r.does
		}
	}
	return q, versions
}

// makers are the parts of texts by which makers are known; the first that fits
// counts. Those who build machines stand before those who sell them firmware:
// "Supermicro, BMC by American Megatrends" behaves as Supermicro's.
var makers = []struct{ part, vendor string }{
	{"dell", dell}, {"hpe", hpe}, {"hewlett", hpe}, {"supermicro", supermicro}, {"super micro", supermicro},
	{"lenovo", lenovo}, {"openbmc", openBMC}, {"american megatrends", ami},
}

// vendorOf is who made the BMC's firmware, which need not be who made the
// machine: the service root knows best.
func vendorOf(r root, s *system) string {
	product := strings.ToLower(r.Product)
	switch {
	case strings.Contains(product, "ami redfish") || strings.Contains(product, "megarac") || hasOem(r.Oem, "Ami"):
		return ami
	case strings.Contains(product, "openbmc") || hasOem(r.Oem, "OpenBmc"):
		return openBMC
	}
	for _, text := range []string{r.Vendor, s.Manufacturer} {
		text = strings.ToLower(text)
		for _, m := range makers {
			if strings.Contains(text, m.part) {
				return m.vendor
			}
		}
	}
	return ""
}

func hasOem(oem map[string]json.RawMessage, key string) bool {
	for k := range oem {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// older compares versions by their numbers, from left to right.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m = x[i]
		}
		if i < len(y) {
			n = y[i]
		}
		if m != n {
			return m < n
		}
	}
	return false
}

func numbers(version string) []int {
	var out []int
	for _, part := range strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.Atoi(part)
		if err != nil { // longer than a number can be
			break
		}
		out = append(out, n)
	}
	return out
}
