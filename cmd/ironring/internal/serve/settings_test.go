package serve

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Settings are changed for all, by who has read the newest; what could break
// the lease protocol is refused, and new keys come when they are asked for.
func TestSettingsAndKeys(t *testing.T) {
	p, c, _ := launch(t, Options{Config: testConfig(t, 1), Init: true})
	eventually(t, "first peer", members(c, 1))
	ctx := t.Context()
	rep, err := c.GetSettings(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	change := func(do func(*api.Settings)) error {
		s := proto.CloneOf(rep.GetSettings())
		do(s)
		_, err := c.SetSettings(ctx, &api.SetSettingsRequest{Settings: s})
		return err
	}
	for name, bad := range map[string]struct {
		do   func(*api.Settings)
		kind errs.Kind
		text string
	}{
		"four voters":   {func(s *api.Settings) { s.MaxVoters = 4 }, errs.Invalid, "max_voters"},
		"no idle move":  {func(s *api.Settings) { s.IdleMoveMs = 0 }, errs.Invalid, "idle_move"},
		"no boot tries": {func(s *api.Settings) { s.BootTries = 0 }, errs.Invalid, "boot_tries"},
		"long stall":    {func(s *api.Settings) { s.BootStallMs = s.BootDeadlineMs + 1 }, errs.Invalid, "boot_stall"},
		"unsafe timing": {func(s *api.Settings) { s.Timing.HolderMs = s.Timing.LeaseMs }, errs.Invalid, "C1"},
		"other timing":  {func(s *api.Settings) { s.Timing.LeaseMs++ }, errs.Unsupported, "founded"},
		"old rev":       {func(s *api.Settings) { s.Rev += 7 }, errs.Conflict, "rev"},
	} {
		if err := change(bad.do); !errors.Is(err, bad.kind) || !strings.Contains(err.Error(), bad.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := change(func(s *api.Settings) { s.MaxVoters, s.IdleMoveMs = 5, 90_000 }); err != nil {
		t.Fatal(err)
	}
	if s := p.cluster.Store().View().Settings(); s.GetMaxVoters() != 5 || s.GetIdleMoveMs() != 90_000 {
		t.Errorf("settings are %v", s)
	}
	before := p.cluster.Keyring().Generation()
	if _, err := c.RotateKeys(ctx, &api.RotateKeysRequest{Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new keys", func(context.Context) error {
		if now := p.cluster.Keyring().Generation(); now == before {
			return errors.New("the keys are the old ones")
		}
		return nil
	})
}
