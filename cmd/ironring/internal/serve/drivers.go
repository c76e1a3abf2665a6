package serve

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/drivers/ipmi"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
)

// known are all drivers of this build.
var known = map[string]func() (drivers.Driver, error){
	"fake":    func() (drivers.Driver, error) { return fake.New(fake.Config{}) },
	"ipmi":    func() (drivers.Driver, error) { return ipmi.New(ipmi.Config{}) },
	"redfish": func() (drivers.Driver, error) { return redfish.New(redfish.Config{}) },
}

// registry makes the drivers that the configuration lists.
func registry(names []string) (*drivers.Registry, error) {
	var list []drivers.Driver
	for _, name := range names {
		newDriver, ok := known[name]
		if !ok {
			return nil, errs.About(errs.Invalid, "drivers", "drivers: this build has no driver %q, only %s",
				name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		d, err := newDriver()
		if err != nil {
			return nil, fmt.Errorf("driver %s: %w", name, err)
		}
		list = append(list, d)
	}
	return drivers.NewRegistry(list...), nil
}
