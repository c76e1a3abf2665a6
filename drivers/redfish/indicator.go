package redfish

import (
	"context"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// led is where a system or a chassis has its LED. LocationIndicatorActive is
// the newer way and cannot blink; IndicatorLED is the older.
type led struct {
	path, etag              string
	IndicatorLED            string
	LocationIndicatorActive *bool
}

func (l *link) led(s *system) (*led, error) {
	at := &led{path: s.path, etag: s.etag, IndicatorLED: s.IndicatorLED, LocationIndicatorActive: s.LocationIndicatorActive}
	if at.there() {
		return at, nil
	}
	for _, c := range s.Links.Chassis[:min(len(s.Links.Chassis), 4)] {
		at = &led{path: c.ID}
		etag, err := l.get(c.ID, at)
		if err != nil {
			return nil, err
		}
		at.etag = etag
		if at.there() {
			return at, nil
		}
	}
	return nil, errs.New(errs.Unsupported, "the BMC offers no indicator LED")
}

func (l *led) there() bool {
	return l.LocationIndicatorActive != nil || l.IndicatorLED != "" && l.IndicatorLED != "Unknown"
}

// Indicator implements drivers.IndicatorSetter.
func (d *Driver) Indicator(ctx context.Context, t drivers.Target) (state api.Indicator, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		at, err := l.led(s)
		if err != nil {
			return err
		}
		switch {
		case at.IndicatorLED == "Blinking":
			state = api.Indicator_INDICATOR_BLINKING
		case at.LocationIndicatorActive != nil && *at.LocationIndicatorActive, at.IndicatorLED == "Lit":
			state = api.Indicator_INDICATOR_ON
		default:
			state = api.Indicator_INDICATOR_OFF
		}
		return nil
	})
	return state, err
}

// SetIndicator implements drivers.IndicatorSetter.
func (d *Driver) SetIndicator(ctx context.Context, t drivers.Target, g drivers.Grant, state api.Indicator) error {
	text := map[api.Indicator]string{
		api.Indicator_INDICATOR_OFF: "Off", api.Indicator_INDICATOR_ON: "Lit", api.Indicator_INDICATOR_BLINKING: "Blinking",
	}[state]
	if text == "" {
		return errs.New(errs.Unsupported, "indicator %v is no state to set", state)
	}
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, q behaviour) error {
		at, err := l.led(s)
		if err != nil {
			return err
		}
		if at.LocationIndicatorActive != nil {
			return l.patch(at.path, map[string]any{"LocationIndicatorActive": text != "Off"}, at.etag, q)
		}
		err = l.patch(at.path, map[string]any{"IndicatorLED": text}, at.etag, q)
		if text == "Off" || statusOf(err) != 400 {
			return err
		}
		other := map[string]string{"Lit": "Blinking", "Blinking": "Lit"}[text] // one of them it may have
		return l.patch(at.path, map[string]any{"IndicatorLED": other}, at.etag, q)
	})
}
