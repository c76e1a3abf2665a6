package cluster_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// A joiner that says too much of itself is refused before its token is used.
func TestOversizedJoin(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 1, clustertest.Options{})
	token := k.Token("p1")
	huge := strings.Repeat("x", 5<<20)
	for name, change := range map[string]func(c *cluster.Config){
		"zone":    func(c *cluster.Config) { c.Advertised.Zone = huge },
		"version": func(c *cluster.Config) { c.Advertised.Version = huge },
		"drivers": func(c *cluster.Config) { c.Advertised.Drivers = strings.Split(strings.Repeat("driver,", 100_000), ",") },
		"address": func(c *cluster.Config) { c.Advertised.AgentAddress = huge },
		"message": func(c *cluster.Config) { c.Advertised.Zone = strings.Repeat("x", 20<<20) },
		"token":   func(c *cluster.Config) { c.JoinToken = token + huge },
	} {
		err := k.TryStart(k.Add("p2"), func(c *cluster.Config) {
			c.JoinToken = token
			change(c)
		})
		if !errors.Is(err, errs.Invalid) || len(err.Error()) > 1000 {
			t.Errorf("%s: %v: %.200v", name, errs.KindOf(err), err)
		}
	}
	k.Join("p2", token)
}
