package fsm

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// The teardown that an accepted undeploy leads to is of who asked for that
// first, not of who asked for the deployment.
func TestTeardownIsOfWhoUndeployed(t *testing.T) {
	f := owned(t)
	tok, fl := f.waits()
	who := &api.Meta{Principal: "client:bob", Source: "192.0.2.7:4711", Reason: "customer has left", WallMs: user.GetWallMs()}
	if res := f.command(who, flowRequest(api.Event_EV_DELETE)); res.GetFailure() != nil {
		t.Fatal(res.GetFailure())
	}
	f.ok(flowRequest(api.Event_EV_DELETE))
	end := flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_ABORTED, api.Event_EV_DELETE)
	end.GetFlowEnd().Next = newFlow(api.FlowKind_FLOW_TEARDOWN, 1)
	f.ok(end, release(nodeID(1), tok))
	if got := f.flow().GetMeta(); !proto.Equal(got, who) {
		t.Errorf("the teardown is of %v", got)
	}
}
