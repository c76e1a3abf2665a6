package client

import (
	"context"

	"github.com/ironring/ironring/api"
)

// GetHardware has the BMC of a node asked by the peer that looks after it; this
// may take most of a minute.
func (c *Client) GetHardware(ctx context.Context, req *api.GetHardwareRequest) (*api.GetHardwareReply, error) {
	return call(ctx, c, slow, req, api.IronringClient.GetHardware)
}

// ChangeHardware asks for one change at a BMC; as with Power the work comes
// after the answer.
func (c *Client) ChangeHardware(ctx context.Context, req *api.ChangeHardwareRequest) (*api.FlowReply, error) {
	return call(ctx, c, write, req, api.IronringClient.ChangeHardware)
}

// AcceptBmcCertificate says which certificate of a BMC is trusted from now on.
func (c *Client) AcceptBmcCertificate(ctx context.Context, req *api.AcceptBmcCertificateRequest) (*api.NodeReply, error) {
	return call(ctx, c, write, req, api.IronringClient.AcceptBmcCertificate)
}
