package serve

import (
	"context"
	"io"
	"path/filepath"

	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/pxe/media"
)

// openMedia makes what writes boot media for virtual CD drives.
func (p *Peer) openMedia() (*media.Maker, error) {
	loader := media.Loader{Shim: p.cfg.Boot.MediaShim, GRUB: p.cfg.Boot.MediaGRUB}
	if loader.Shim == config.NoShim {
		loader.Shim = ""
	}
	return media.New(media.Config{
		Dir:    filepath.Join(p.cfg.DataDir, "media"),
		Loader: loader,
		Room:   p.artifacts.Room,
		Open: func(ctx context.Context, digest string) (io.ReadCloser, error) {
			return p.artifacts.Open(ctx, digest)
		},
	})
}
