package redfish

import (
	"context"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
)

// The most of each kind that is listed.
const (
	maxNICs     = 16
	maxStorages = 8
	maxDrives   = 48
)

// Items implements drivers.ItemReader.
func (d *Driver) Items(ctx context.Context, t drivers.Target) (out []*api.HardwareItem, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		out = append(out, &api.HardwareItem{
			Kind: "system", Name: clean(s.SKU), Vendor: clean(s.Manufacturer), Model: clean(s.Model),
			Serial: clean(s.SerialNumber), PartNumber: clean(s.PartNumber), Health: clean(s.Status.Health),
		})
		if s.BiosVersion != "" {
			out = append(out, &api.HardwareItem{Kind: "bios", Version: clean(s.BiosVersion)})
		}
		if n := s.ProcessorSummary.Count; n > 0 && n < 1<<16 {
			out = append(out, &api.HardwareItem{Kind: "processor", Model: clean(s.ProcessorSummary.Model), Count: uint32(n)})
		}
		if gib := s.MemorySummary.TotalSystemMemoryGiB; gib > 0 && gib < 1<<30 {
			out = append(out, &api.HardwareItem{Kind: "memory", Bytes: uint64(gib * (1 << 30))})
		}
		managers, err := l.managers()
		if err != nil {
			return err
		}
		for _, m := range managers {
			out = append(out, &api.HardwareItem{Kind: "bmc", Model: clean(m.Model), Version: clean(m.FirmwareVersion)})
		}
		if err := l.nics(s, &out); err != nil {
			return err
		}
		return l.drives(s, &out)
	})
	return out, err
}

func (l *link) nics(s *system, out *[]*api.HardwareItem) error {
	paths, err := l.list(s.EthernetInterfaces.ID)
	if err != nil {
		return err
	}
	for _, p := range paths[:min(len(paths), maxNICs)] {
		var n nic
		if ok, err := l.optional(p, &n); err != nil {
			return err
		} else if ok {
			mac := n.PermanentMACAddress
			if mac == "" {
				mac = n.MACAddress
			}
			*out = append(*out, &api.HardwareItem{Kind: "nic", Name: clean(n.ID), Address: normalMAC(mac), Health: clean(n.Status.Health)})
		}
	}
	return nil
}

func (l *link) drives(s *system, out *[]*api.HardwareItem) error {
	storages, err := l.list(s.Storage.ID)
	if err != nil {
		return err
	}
	left := maxDrives
	for _, p := range storages[:min(len(storages), maxStorages)] {
		var st struct{ Drives []ref }
		if _, err := l.optional(p, &st); err != nil {
			return err
		}
		for _, r := range st.Drives {
			if left--; left < 0 {
				return nil
			}
			var d struct {
				Name, Manufacturer, Model, SerialNumber, PartNumber, Revision string
				CapacityBytes                                                 float64
				Status                                                        status
			}
			if ok, err := l.optional(r.ID, &d); err != nil {
				return err
			} else if ok {
				item := &api.HardwareItem{
					Kind: "drive", Name: clean(d.Name), Vendor: clean(d.Manufacturer), Model: clean(d.Model), Serial: clean(d.SerialNumber),
					PartNumber: clean(d.PartNumber), Version: clean(d.Revision), Health: clean(d.Status.Health),
				}
				if d.CapacityBytes > 0 && d.CapacityBytes < 1<<62 {
					item.Bytes = uint64(d.CapacityBytes)
				}
				*out = append(*out, item)
			}
		}
	}
	return nil
}
