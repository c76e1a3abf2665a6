package config

import (
	"net"
	"strconv"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/ports"
)

// Forms reports whether the file says how its peers form a cluster: one and
// the same file on every host.
func (c *Config) Forms() bool { return len(c.Join) > 0 }

// completeForm gives every address of join its port.
func (c *Config) completeForm() error {
	for i, s := range c.Join {
		address, err := completeAddress(s, "", ports.Cluster)
		if host, _, serr := net.SplitHostPort(address); err == nil && (serr != nil || wildcard(host)) {
			err = errs.New(errs.Invalid, "%q names no host", s)
		}
		if err != nil {
			return errs.About(errs.Invalid, "join", "join: %w", err)
		}
		c.Join[i] = address
	}
	if c.Forms() && c.Expect == 0 {
		c.Expect = len(c.Join)
	}
	return nil
}

// validateForm looks at the keys of forming together.
func (c *Config) validateForm() []error {
	var all []error
	bad := func(key, format string, args ...any) {
		all = append(all, errs.About(errs.Invalid, key, key+": "+format, args...))
	}
	if !c.Forms() {
		for key, given := range map[string]bool{"cluster_id": c.ClusterID != "", "expect": c.Expect != 0, "key_file": c.KeyFile != ""} {
			if given {
				bad(key, "is only for peers that form their cluster: set join too, or leave it out")
			}
		}
		return all
	}
	if !validID.MatchString(c.ClusterID) || net.ParseIP(c.ClusterID) != nil {
		bad("cluster_id", "%q must be a name of its own for the cluster: letters a-z, digits, '.' and '-', at most 63", c.ClusterID)
	}
	if c.KeyFile == "" {
		bad("key_file", "is not set: the peers of join prove themselves with a shared secret; make one with `openssl rand -base64 32`")
	}
	if c.Expect < 1 || c.Expect > len(c.Join) || 2*c.Expect <= len(c.Join) {
		bad("expect", "%q must be more than half of the %d peers of join, and at most all of them", strconv.Itoa(c.Expect), len(c.Join))
	}
	return all
}
