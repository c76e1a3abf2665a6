package clienttest

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// GetHardware implements api.IronringServer: every machine is the same.
func (p *Peer) GetHardware(_ context.Context, req *api.GetHardwareRequest) (*api.GetHardwareReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	n, err := p.c.nodeLocked(req.GetNode())
	if err != nil {
		return nil, err
	}
	if len(req.GetParts()) == 0 {
		return nil, errs.About(errs.Invalid, "parts", "name the parts of the hardware that are wanted")
	}
	warning := ""
	if n.GetBmc() != nil && n.GetBmc().GetDriverRev() != n.GetDriverRev() {
		warning = "this may be another machine than the node's"
	}
	return &api.GetHardwareReply{
		Warning: warning, NodeId: n.GetId(), From: p.ID, ReadMs: p.c.Now(), BootDevice: api.BootDevice_BOOT_DEVICE_PXE, BootMode: api.BootMode_BOOT_MODE_UEFI,
		SecureBoot: &api.SecureBoot{Enabled: true, Mode: "UserMode"}, Indicator: api.Indicator_INDICATOR_BLINKING,
		Media: []*api.VirtualMedia{{Slot: "Cd", Types: []string{"CD", "DVD"}, Inserted: true, Image: "http://h/a.iso"}, {Slot: "Usb", Types: []string{"USBStick"}}},
		Sensors: []*api.Sensor{
			{Name: "Inlet Temp", Kind: "temperature", Value: proto.Float64(23), Unit: "C", State: api.Sensor_OK, UpperCritical: proto.Float64(47)},
			{Name: "Intrusion", Kind: "discrete", Text: "0x01", State: api.Sensor_CRITICAL},
		},
		Events: []*api.BmcEvent{{Id: "1", AtMs: 1711974896000, Severity: "critical", Sensor: "Fan1", Text: "went low"}, {Id: "2", Text: "log cleared"}},
		Items:  []*api.HardwareItem{{Kind: "system", Vendor: "Acme", Model: "S7", Serial: "SN7"}, {Kind: "memory", Bytes: 64 << 30}, {Kind: "processor", Model: "P", Count: 2}},
	}, nil
}

// ChangeHardware implements api.IronringServer.
func (p *Peer) ChangeHardware(_ context.Context, req *api.ChangeHardwareRequest) (*api.FlowReply, error) {
	c := p.c
	step := &api.Step{Interface: "management", Policy: api.ResumePolicy_RESUME_OBSERVE}
	switch change := req.GetChange().(type) {
	case *api.ChangeHardwareRequest_BootDevice:
		step.Name, step.Args = "set_boot_device", fmt.Appendf(nil, `{"persistent":%v}`, change.BootDevice.GetPersistent())
	case *api.ChangeHardwareRequest_InsertMedia:
		if !strings.HasPrefix(change.InsertMedia.GetImage(), "http") {
			return nil, errs.About(errs.Invalid, "image", "image: an http or https URL is needed")
		}
		step.Name = "insert_media"
	case nil:
		return nil, errs.About(errs.Invalid, "change", "nothing to change was named")
	default:
		step.Name = "change"
	}
	return once(c, req.GetRequestId(), "hardware "+req.GetNode(), func() (*api.FlowReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		if err := sameRev(n, req.GetRev()); err != nil {
			return nil, err
		}
		c.changeLocked(n, func(*api.Node, *api.Flow) {})
		f := c.flowLocked(n.Id, api.FlowKind_FLOW_HARDWARE, nil)
		f.Steps = []*api.Step{step}
		c.flows[n.Id] = f
		return &api.FlowReply{Flow: f, Node: masked(n), Index: c.index}, nil
	})
}

// AcceptBmcCertificate implements api.IronringServer.
func (p *Peer) AcceptBmcCertificate(_ context.Context, req *api.AcceptBmcCertificateRequest) (*api.NodeReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "accept certificate "+req.GetNode(), func() (*api.NodeReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		c.changeLocked(n, func(n *api.Node, _ *api.Flow) { n.BmcTls = &api.BmcTls{Fingerprint: req.GetFingerprint()} })
		return &api.NodeReply{Node: masked(n), Index: c.index}, nil
	})
}
