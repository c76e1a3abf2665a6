package drivers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// Registry is the set of drivers that a process knows. It does not change once
// made and may be used by any goroutine.
type Registry struct {
	byName map[string]Driver
}

// NewRegistry makes a registry. Two drivers of one name are a programmer's
// error and panic.
func NewRegistry(drivers ...Driver) *Registry {
	r := &Registry{byName: make(map[string]Driver, len(drivers))}
	for _, d := range drivers {
		if _, dup := r.byName[d.Name()]; dup || d.Name() == "" {
			panic(fmt.Sprintf("drivers: driver %q registered twice or without a name", d.Name()))
		}
		r.byName[d.Name()] = d
	}
	return r
}

// Get returns the driver of that name, or errs.Invalid with a list of those
// there are.
func (r *Registry) Get(name string) (Driver, error) {
	if d, ok := r.byName[name]; ok {
		return d, nil
	}
	return nil, errs.About(errs.Invalid, "driver", "unknown driver %q, known are: %s",
		name, strings.Join(r.Names(), ", "))
}

// Names are the names of the drivers, sorted.
func (r *Registry) Names() []string {
	return slices.Sorted(maps.Keys(r.byName))
}

// Close has every driver give back what it keeps between calls; it returns when
// all have, or ctx has ended. They can be used again afterwards.
func (r *Registry) Close(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range r.byName {
		if c, ok := d.(Closer); ok {
			all.Go(func() { c.Close(ctx) })
		}
	}
	all.Wait()
}

// Secret reports whether a driver_info key holds a secret. A key counts as
// secret when any driver says so, or when it looks like one: what a driver of
// tomorrow calls a password must be sealed today.
func (r *Registry) Secret(key string) bool {
	for _, d := range r.byName {
		for _, f := range d.Fields() {
			if f.Name == key && f.Secret {
				return true
			}
		}
	}
	return seal.LooksSecret(key)
}
