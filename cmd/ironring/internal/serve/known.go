package serve

import (
	"maps"
	"slices"

	"github.com/ironring/ironring/drivers"
)

// Drivers are all drivers of this build, for help texts and for checks before
// anything is sent. One that cannot be made on this host is left out.
func Drivers() *drivers.Registry {
	var list []drivers.Driver
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if d, err := known[name](); err == nil {
			list = append(list, d)
		}
	}
	return drivers.NewRegistry(list...)
}
