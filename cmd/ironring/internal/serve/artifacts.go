package serve

import (
	"path/filepath"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/pxe/artifact"
)

// openArtifacts opens the files that this peer keeps. It runs before the
// conductor and the boot services, which use it.
func (p *Peer) openArtifacts() (err error) {
	p.artifacts, err = artifact.New(artifact.Config{
		Dir: filepath.Join(p.cfg.DataDir, "artifacts"), DiskPercent: p.cfg.Artifacts.DiskPercent,
		Self: p.cluster.ID(), Store: p.cluster.Store(), Propose: p.cluster.Propose, PeerConn: p.cluster.PeerConn,
		Clock: clock.System{}, Logger: p.log.With("part", "artifacts"),
	})
	return err
}
