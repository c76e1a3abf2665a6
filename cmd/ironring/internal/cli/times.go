package cli

import (
	"fmt"
	"strings"
	"time"
)

// span is a duration in at most two units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// ago is a moment of some peer's clock, relative to ours; "" for none.
func (f *Factory) ago(ms int64) string {
	if ms == 0 {
		return ""
	}
	d := f.Now().Sub(time.UnixMilli(ms))
	if d < time.Second && d > -5*time.Second { // clocks differ a little
		return "just now"
	}
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// left is how long it is until a moment of some peer's clock, without false
// precision: the seconds that the answer took do not count.
func (f *Factory) left(ms int64) string {
	d := max(time.UnixMilli(ms).Sub(f.Now()), 0)
	if d > time.Minute {
		d = (d + 5*time.Second).Truncate(10 * time.Second)
	}
	s := d.Truncate(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// stamp is a moment as UTC with milliseconds.
func stamp(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
