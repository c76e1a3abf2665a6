package service

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/netdata"
	"github.com/ironring/ironring/node"
)

// mediaBootable refuses a boot from virtual media that could only end in a
// time-out, or that this build does not know.
func (s *Service) mediaBootable(n *api.Node) error {
	v := s.cfg.Cluster.Store().View()
	if _, err := netdata.OfNode(n.GetProperties()); err != nil {
		return err
	}
	if node.BIOS(n) {
		return errs.About(errs.Unsupported, n.GetId(), "node %s boots in BIOS mode, and virtual media are for UEFI: set properties/boot_mode to uefi, or boot it from the network", node.Label(n))
	}
	if len(v.Ramdisks()) == 0 {
		return errs.About(errs.WrongState, n.GetId(), "node %s boots from virtual media, which needs a published ramdisk: `ironring ramdisk build --publish`", node.Label(n))
	}
	return nil
}
