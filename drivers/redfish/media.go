package redfish

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// medium is a VirtualMedia.
type medium struct {
	path           string
	etag           string
	ID             string `json:"Id"`
	MediaTypes     []string
	Image          string
	Inserted       *bool
	ConnectedVia   string
	WriteProtected bool
	Actions        struct {
		Insert action `json:"#VirtualMedia.InsertMedia"`
		Eject  action `json:"#VirtualMedia.EjectMedia"`
	}
}

// inserted is whether there is a medium. Older BMCs do not say it but show its
// image, and some show the image for ever.
func (m *medium) inserted(q behaviour) bool {
	if q.has(staleImage) && m.ConnectedVia == "NotConnected" {
		return false
	}
	if m.Inserted != nil {
		return *m.Inserted
	}
	return m.Image != ""
}

func (m *medium) shown(q behaviour) *api.VirtualMedia {
	out := &api.VirtualMedia{Slot: clean(m.ID), Inserted: m.inserted(q), WriteProtected: m.WriteProtected}
	for _, t := range m.MediaTypes[:min(len(m.MediaTypes), 16)] {
		out.Types = append(out.Types, clean(t))
	}
	if out.Inserted {
		out.Image = withoutUser(clean(m.Image))
	}
	return out
}

func withoutUser(image string) string {
	u, err := url.Parse(image)
	if err != nil || u.User == nil {
		return image
	}
	u.User = nil
	return u.String()
}

// media are the slots of the system and its managers, each name once.
func (l *link) media(s *system) ([]*medium, error) {
	collections := []string{s.VirtualMedia.ID}
	managers, err := l.managers()
	if err != nil {
		return nil, err
	}
	for _, m := range managers {
		collections = append(collections, m.VirtualMedia.ID)
	}
	var out []*medium
	for _, c := range collections {
		paths, err := l.list(c)
		if err != nil {
			return nil, err
		}
		for _, p := range paths[:min(len(paths), 16)] {
			m := &medium{path: p}
			if m.etag, err = l.get(p, m); err != nil {
				return nil, err
			}
			if m.ID != "" && !slices.ContainsFunc(out, func(o *medium) bool { return o.ID == m.ID }) {
				out = append(out, m)
			}
		}
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Unsupported, "the BMC has no virtual media, or no licence for it")
	}
	return out, nil
}

// slot is the one of that name, or the first for a CD.
func slot(all []*medium, name string) (*medium, error) {
	var names []string
	for _, m := range all {
		cd := slices.ContainsFunc(m.MediaTypes, func(t string) bool { return t == "CD" || t == "DVD" })
		if name != "" && strings.EqualFold(m.ID, name) || name == "" && cd {
			return m, nil
		}
		names = append(names, m.ID)
	}
	return nil, errs.About(errs.Invalid, "slot", "the BMC has no slot %q for virtual media, it has: %s", name, clean(strings.Join(names, ", ")))
}

// Media implements drivers.MediaAttacher.
func (d *Driver) Media(ctx context.Context, t drivers.Target) (out []*api.VirtualMedia, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		q, err := l.behaviour(s)
		if err != nil {
			return err
		}
		all, err := l.media(s)
		for _, m := range all {
			out = append(out, m.shown(q))
		}
		return err
	})
	return out, err
}

// InsertMedia implements drivers.MediaAttacher.
func (d *Driver) InsertMedia(ctx context.Context, t drivers.Target, g drivers.Grant, name, image string) error {
	return d.changeMedia(ctx, t, g, name, func(l *link, m *medium, q behaviour) error {
		if m.inserted(q) {
			if m.Image == image {
				return nil
			}
			return errs.New(errs.Busy, "slot %s has another image: eject it first", clean(m.ID))
		}
		full := map[string]any{"Image": image, "Inserted": true, "WriteProtected": true}
		if m.Actions.Insert.Target == "" {
			return l.patch(m.path, full, m.etag, q)
		}
		err := l.post(m.Actions.Insert.Target, full)
		if s := statusOf(err); s != http.StatusBadRequest && s != http.StatusUnprocessableEntity {
			return err
		}
		return l.post(m.Actions.Insert.Target, map[string]any{"Image": image}) // the least that Redfish asks for
	})
}

// EjectMedia implements drivers.MediaAttacher.
func (d *Driver) EjectMedia(ctx context.Context, t drivers.Target, g drivers.Grant, name string) error {
	return d.changeMedia(ctx, t, g, name, func(l *link, m *medium, q behaviour) error {
		switch {
		case !m.inserted(q):
			return nil
		case m.Actions.Eject.Target == "":
			return l.patch(m.path, map[string]any{"Image": nil, "Inserted": false}, m.etag, q)
		}
		return l.post(m.Actions.Eject.Target, nil)
	})
}

func (d *Driver) changeMedia(ctx context.Context, t drivers.Target, g drivers.Grant, name string, do func(*link, *medium, behaviour) error) error {
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, q behaviour) error {
		all, err := l.media(s)
		if err != nil {
			return err
		}
		m, err := slot(all, name)
		if err != nil {
			return err
		}
		return do(l, m, q)
	})
}
