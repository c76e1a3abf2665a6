package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// bmcPlace is where driver_info says that a machine is: the address of a BMC,
// and which of its systems. The zero value is nowhere.
type bmcPlace struct{ address, system string }

func placeOf(info map[string]any) bmcPlace {
	var p bmcPlace
	port := ""
	for _, k := range slices.Sorted(maps.Keys(info)) {
		text := fmt.Sprint(info[k])
		switch {
		case strings.HasSuffix(k, "_address"):
			text, _ := info[k].(string)
			_, host, found := strings.Cut(text, "://")
			if !found {
				host = text
			}
			p.address = strings.TrimSuffix(strings.ToLower(strings.TrimRight(host, "/")), ":443")
		case strings.HasSuffix(k, "_port"):
			if text != "623" { // IPMI's own
				port += " " + text
			}
		case strings.HasSuffix(k, "_system_id"):
			text = strings.TrimRight(text, "/")
			p.system = text[strings.LastIndexByte(text, '/')+1:] // given as a name or as a path
		}
	}
	if p.address == "" {
		return bmcPlace{}
	}
	p.address += port
	return p
}

// same reports whether two places can be one machine. Who names no system means
// the only one there is.
func (p bmcPlace) same(o bmcPlace) bool {
	return p.address != "" && p.address == o.address && (p.system == o.system || p.system == "" || o.system == "")
}

func (p bmcPlace) String() string { return strings.TrimSpace(p.address + " " + p.system) }
