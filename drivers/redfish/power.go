package redfish

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// How a reset is repeated that was refused because another is under way.
const (
	resetPause = 500 * time.Millisecond
	resetTries = 60
)

// PowerState implements drivers.PowerReader.
func (d *Driver) PowerState(ctx context.Context, t drivers.Target) (state api.PowerState, err error) {
	err = d.readSystem(ctx, t, func(_ *link, s *system) error {
		is, known := power(s.PowerState)
		if !known {
			return errs.New(errs.Internal, "the BMC reports a power state that Redfish does not know: %q", clean(s.PowerState))
		}
		state = is
		return nil
	})
	return state, err
}

// SetPower implements drivers.PowerSetter. What already is, is not asked for.
func (d *Driver) SetPower(ctx context.Context, t drivers.Target, g drivers.Grant, action api.PowerAction) error {
	var types []string
	want := api.PowerState_POWER_OFF
	switch action {
	case api.PowerAction_POWER_ACTION_ON:
		types, want = []string{"On", "ForceOn"}, api.PowerState_POWER_ON
	case api.PowerAction_POWER_ACTION_OFF:
		types = []string{"ForceOff"}
	case api.PowerAction_POWER_ACTION_SOFT_OFF:
		types = []string{"GracefulShutdown"}
	default:
		return errs.New(errs.Unsupported, "power action %v is not a level: use on, off, soft off", action)
	}
	return d.changeSystem(ctx, t, g, func(ctx context.Context, l *link, s *system, q behaviour) error {
		if is, _ := power(s.PowerState); is == want {
			return nil
		}
		return l.reset(ctx, s, q, want, types...)
	})
}

// SendNMI implements drivers.NMISender.
func (d *Driver) SendNMI(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, _ behaviour) error {
		kind, err := s.resetType("Nmi")
		if err != nil {
			return err
		}
		return l.post(s.Actions.Reset.Target, map[string]any{"ResetType": kind})
	})
}

// resetType is the first of some types that the BMC has.
func (s *system) resetType(types ...string) (string, error) {
	allowed := s.Actions.Reset.Allowed
	for _, t := range types {
		if len(allowed) == 0 || slices.Contains(allowed, t) {
			return t, nil
		}
	}
	return "", errs.New(errs.Unsupported, "the BMC does not offer this action")
}

// reset asks for a level of power. A BMC that refuses because the machine is so
// already has done what was asked; one that is still busy with the reset before
// is asked again: it has done nothing.
func (l *link) reset(ctx context.Context, s *system, q behaviour, want api.PowerState, types ...string) error {
	kind, err := s.resetType(types...)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := l.post(s.Actions.Reset.Target, map[string]any{"ResetType": kind})
		status := statusOf(err)
		if status != http.StatusConflict && status != http.StatusBadRequest {
			return err
		}
		refused := l.call.record()
		now, gerr := l.again(s)
		if gerr != nil {
			return err
		}
		if is, _ := power(now.PowerState); is == want {
			return nil
		}
		l.call.note(func(r *record) { r.failed, r.failedURL, r.message = refused.failed, refused.failedURL, refused.message })
		if status != http.StatusConflict || !q.has(waitReset) || try >= resetTries {
			return err
		}
		timer := time.NewTimer(resetPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}
