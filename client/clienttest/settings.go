package clienttest

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// GetSettings implements api.IronringServer.
func (p *Peer) GetSettings(context.Context, *api.GetSettingsRequest) (*api.SettingsReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return &api.SettingsReply{Settings: p.c.settingsLocked(), Index: p.c.index}, nil
}

func (c *Cluster) settingsLocked() *api.Settings {
	if c.settings == nil {
		c.settings = &api.Settings{
			Timing:    &api.Timing{LeaseMs: 12_000, HolderMs: 8_000, RenewMs: 2_000, RpcMs: 1_000, MarginMs: 2_000, GuardMs: 5_000, ElectionMs: 3_000, SettleMs: 2_000, TcpUserMs: 5_000, BmcEffectMs: 5_000},
			MaxVoters: 3, RingVersion: 1, IdleMoveMs: 60_000, JoinStableMs: 30_000,
			BootStallMs: 90_000, BootDeadlineMs: 1_800_000, BootTries: 3, Rev: 1,
		}
	}
	return proto.CloneOf(c.settings)
}

// SetSettings implements api.IronringServer. It compares the rev and checks
// nothing else.
func (p *Peer) SetSettings(_ context.Context, req *api.SetSettingsRequest) (*api.SettingsReply, error) {
	return once(p.c, req.GetRequestId(), "set settings", func() (*api.SettingsReply, error) {
		if is := p.c.settingsLocked().GetRev(); req.GetSettings().GetRev() != is {
			return nil, errs.About(errs.Conflict, "settings", "the settings were changed: their rev is %d, not %d", is, req.GetSettings().GetRev())
		}
		p.c.settings = proto.CloneOf(req.GetSettings())
		p.c.settings.Rev++
		return &api.SettingsReply{Settings: p.c.settings, Index: p.c.index}, nil
	})
}

// RotateKeys implements api.IronringServer.
func (p *Peer) RotateKeys(_ context.Context, req *api.RotateKeysRequest) (*api.WriteReply, error) {
	return once(p.c, req.GetRequestId(), "rotate keys", func() (*api.WriteReply, error) {
		return &api.WriteReply{Index: p.c.index}, nil
	})
}
