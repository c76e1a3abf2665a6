package client

import (
	"context"

	"github.com/ironring/ironring/api"
)

// GetSettings reads the settings that all peers share.
func (c *Client) GetSettings(ctx context.Context, req *api.GetSettingsRequest) (*api.SettingsReply, error) {
	return call(ctx, c, read, req, api.IronringClient.GetSettings)
}

// SetSettings replaces the settings; Conflict when they changed since they were read.
func (c *Client) SetSettings(ctx context.Context, req *api.SetSettingsRequest) (*api.SettingsReply, error) {
	return call(ctx, c, write, req, api.IronringClient.SetSettings)
}

// RotateKeys asks the leader for new cluster keys; they come soon after.
func (c *Client) RotateKeys(ctx context.Context, req *api.RotateKeysRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.RotateKeys)
}
