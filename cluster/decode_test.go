package cluster

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// A command with a field that this build does not know must not get into the
// log: Apply would stop every peer.
func TestForeignCommandIsRefusedBeforeTheLog(t *testing.T) {
	raw := protowire.AppendTag(nil, 77, protowire.VarintType)
	raw = protowire.AppendVarint(raw, 1)
	_, err := peerService{c: &Cluster{}}.Propose(t.Context(), &api.ProposeRequest{Command: raw})
	if !errors.Is(err, errs.Unsupported) {
		t.Fatalf("got %v, want kind %v", err, errs.Unsupported)
	}
}
