package service_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

var sensors = []api.HardwarePart{api.HardwarePart_HARDWARE_SENSORS}

// assign gives n1 to a peer, or to nobody.
func (f *fixture) assign(peer string) {
	f.Helper()
	n := f.stored("n1")
	f.c.Must(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: f.c.Term(), Nodes: []*api.Assignment{{NodeId: n.GetId(), Conductor: peer, Epoch: n.GetAssignEpoch() + 1}}}}})
}

// Only the holder, else the owner, asks the BMC: here that is this peer, or one
// that cannot be reached.
func TestHardwareIsReadByTheKeeper(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		asked := 0
		var answer error
		f.hardware = func(_ context.Context, id string, parts []api.HardwarePart) (*api.GetHardwareReply, error) {
			asked++
			return &api.GetHardwareReply{NodeId: id, From: "p1", Sensors: []*api.Sensor{{Name: "Inlet Temp"}}}, answer
		}
		get := func() error {
			_, err := f.svc.GetHardware(f.ctx, &api.GetHardwareRequest{Node: "n1", Parts: sensors})
			return err
		}
		f.assign("")
		wants(f.T, "a node without an owner", get(), errs.NotOwner, "explain")
		f.assign("p1")
		if err := get(); err != nil || asked != 1 {
			f.Errorf("%v, asked %d times", err, asked)
		}
		_, err := f.svc.GetHardware(f.ctx, &api.GetHardwareRequest{Node: "n1"})
		wants(f.T, "no part", err, errs.Invalid, "parts")
		_, err = f.svc.GetHardware(f.ctx, &api.GetHardwareRequest{Node: "n9", Parts: sensors})
		wants(f.T, "no node", err, errs.NotFound, "n9")
		// A BMC that does not answer is no reason to ask another peer.
		answer = errs.New(errs.Unreachable, "no route")
		wants(f.T, "a silent BMC", get(), errs.Busy, "no route")
		answer = nil
		f.assign("p2")
		asked = 0
		if err := get(); errs.KindOf(err) == errs.Internal || err == nil || asked != 0 {
			f.Errorf("owned by another peer: %v, asked %d times", err, asked)
		}
		// Another peer may only ask of the keeper.
		id := f.stored("n1").GetId()
		_, err = f.svc.LocalHardware(f.ctx, &api.LocalHardwareRequest{NodeId: id, Parts: sensors})
		wants(f.T, "a client", err, errs.Denied, "peers")
		peer := f.c.As(f.Context(), f, pki.Identity{Role: pki.RolePeer, Name: "p2"})
		_, err = f.svc.LocalHardware(peer, &api.LocalHardwareRequest{NodeId: id, Parts: sensors})
		wants(f.T, "not the keeper", err, errs.NotOwner, "p2")
		f.assign("p1")
		if rep, err := f.svc.LocalHardware(peer, &api.LocalHardwareRequest{NodeId: id, Parts: sensors}); err != nil || len(rep.GetSensors()) != 1 {
			f.Errorf("%v, %v", rep, err)
		}
	})
}

func TestChangeHardware(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		nmi := &api.ChangeHardwareRequest{Node: "n1", Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}}
		rep, err := f.svc.ChangeHardware(f.ctx, nmi)
		if err != nil || rep.GetFlow().GetKind() != api.FlowKind_FLOW_HARDWARE || len(rep.GetFlow().GetSteps()) != 1 || rep.GetFlow().GetMeta().GetReason() != "send nmi" {
			f.Fatalf("%v, %v", rep, err)
		}
		_, err = f.svc.ChangeHardware(f.ctx, nmi)
		wants(f.T, "a second flow", err, errs.Locked, "hardware is under way")
		_, err = f.svc.ChangeHardware(f.ctx, &api.ChangeHardwareRequest{Node: "n1", Change: &api.ChangeHardwareRequest_AcceptMachine{AcceptMachine: "S-17"}})
		wants(f.T, "a machine for a node in enroll", err, errs.WrongState, "ironring node manage n1")
		_, err = f.svc.ChangeHardware(f.ctx, &api.ChangeHardwareRequest{Node: "n1"})
		wants(f.T, "nothing", err, errs.Invalid, "nothing to change")
	})
}

func TestAcceptCertificate(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.create("n1").GetId()
		accept := func(fp string) error {
			_, err := f.svc.AcceptBmcCertificate(f.ctx, &api.AcceptBmcCertificateRequest{Node: "n1", Fingerprint: fp})
			return err
		}
		one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
		wants(f.T, "no fingerprint", accept("abc"), errs.Invalid, "sha256:")
		wants(f.T, "nothing on record", accept("sha256:"+one), errs.WrongState, "no certificate")
		f.c.Must(&api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{NodeId: id, How: api.BmcTrust_FIRST, Fingerprint: "sha256:" + one, Address: "b:443"}}})
		if err := accept("SHA256:" + strings.TrimSuffix(strings.Repeat("22:", 32), ":")); err != nil {
			f.Fatal(err)
		}
		if tls := f.stored("n1").GetBmcTls(); tls.GetFingerprint() != "sha256:"+two || tls.GetAddress() != "b:443" {
			f.Errorf("on record is %v", tls)
		}
	})
}
