package redfish

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// maxEventPages bounds how far a log is followed.
const maxEventPages = 20

// logService is one log of a BMC.
type logService struct {
	path         string
	ID           string `json:"Id"`
	LogEntryType string
	Entries      ref
	Actions      struct {
		Clear action `json:"#LogService.ClearLog"`
	}
}

// eventLog is the log of the machine's hardware: the SEL where there is one,
// else what makers call it.
func (l *link) eventLog(s *system) (*logService, error) {
	collections := []string{s.LogServices.ID}
	managers, err := l.managers()
	if err != nil {
		return nil, err
	}
	for _, m := range managers {
		collections = append(collections, m.LogServices.ID)
	}
	var best *logService
	for _, c := range collections {
		paths, err := l.list(c)
		if err != nil {
			return nil, err
		}
		for _, p := range paths[:min(len(paths), 16)] {
			log := &logService{path: p}
			if ok, err := l.optional(p, log); err != nil {
				return nil, err
			} else if ok && (best == nil || log.rank() < best.rank()) {
				best = log
			}
		}
	}
	if best == nil {
		return nil, errs.New(errs.Unsupported, "the BMC offers no event log")
	}
	return best, nil
}

// rank is lower for what looks more like the log of the hardware.
func (g *logService) rank() int {
	if g.LogEntryType == "SEL" {
		return 0
	}
	names := []string{"sel", "iml", "eventlog", "log1", "standardlog"}
	if i := slices.Index(names, strings.ToLower(g.ID)); i >= 0 {
		return 1 + i
	}
	return 1 + len(names)
}

// logEntry is a LogEntry.
type logEntry struct {
	ID         string `json:"Id"`
	Path       string `json:"@odata.id"`
	Created    string
	Severity   string
	SensorType string
	Message    string
	MessageID  string `json:"MessageId"`
	Name       string
}

func (e logEntry) event() *api.BmcEvent {
	out := &api.BmcEvent{Id: clean(e.ID), Sensor: clean(e.SensorType), Text: clean(e.Message)}
	if out.Text == "" {
		out.Text = clean(e.MessageID)
	}
	switch e.Severity {
	case "OK":
		out.Severity = "ok"
	case "Warning":
		out.Severity = "warning"
	case "Critical":
		out.Severity = "critical"
	}
	if at, err := time.Parse(time.RFC3339, e.Created); err == nil && at.Unix() > 0 {
		out.AtMs = at.UnixMilli()
	}
	return out
}

// Events implements drivers.EventReader.
func (d *Driver) Events(ctx context.Context, t drivers.Target) (out []*api.BmcEvent, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		log, err := l.eventLog(s)
		if err != nil {
			return err
		}
		entries, err := l.entries(log.Entries.ID)
		for _, e := range entries {
			out = append(out, e.event())
		}
		return err
	})
	// Some have the latest first, some last.
	slices.SortStableFunc(out, func(a, b *api.BmcEvent) int { return int(min(1, max(-1, a.GetAtMs()-b.GetAtMs()))) })
	return out[max(0, len(out)-drivers.MaxEvents):], err
}

// entries reads a collection whose members stand in it, as Redfish asks of
// logs, or are linked, as some BMCs do.
func (l *link) entries(path string) ([]logEntry, error) {
	var out []logEntry
	for page := 0; path != "" && page < maxEventPages; page++ {
		var c struct {
			Members []json.RawMessage
			Next    string `json:"Members@odata.nextLink"`
		}
		if ok, err := l.optional(path, &c); err != nil || !ok {
			return out, err
		}
		linked := 0
		for _, raw := range c.Members {
			var e logEntry
			if json.Unmarshal(raw, &e) != nil {
				continue // one bad entry hides no others
			}
			if e.Created == "" && e.Message == "" && e.ID == "" && e.Path != "" {
				if linked++; linked > maxMembers {
					continue
				}
				if ok, err := l.optional(e.Path, &e); err != nil {
					return out, err
				} else if !ok {
					continue
				}
			}
			out = append(out, e)
		}
		path = c.Next
	}
	return out, nil
}

// ClearEvents implements drivers.EventClearer.
func (d *Driver) ClearEvents(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, _ behaviour) error {
		log, err := l.eventLog(s)
		if err != nil {
			return err
		}
		return l.post(log.Actions.Clear.Target, nil)
	})
}
