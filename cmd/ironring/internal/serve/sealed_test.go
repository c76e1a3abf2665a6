package serve

import (
	"slices"
	"testing"

	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/internal/seal"
)

// Whatever secrets are sealed for, a rotation of keys must know: a place that
// it does not know keeps the old key alive for ever.
func TestRotationKnowsEveryPlaceOfSecrets(t *testing.T) {
	places := duties.SealedPlaces("x")
	want := []string{bmc.AAD("x"), flow.AAD("x"), seal.PortAAD("x", "extra")}
	for _, field := range []string{"driver_info", "properties", "extra", "instance_info"} {
		want = append(want, seal.NodeAAD("x", field))
	}
	for _, w := range want {
		if !slices.Contains(places, w) {
			t.Errorf("%s is not among %v", w, places)
		}
	}
}
