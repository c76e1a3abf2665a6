package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// keep is how many templates stay on disk: those of the last ramdisks.
const keep = 3

// Config of a Maker.
type Config struct {
	Dir    string // for templates; ours alone, emptied at the start
	Loader Loader
	// Open gives a kernel or initramfs by its key, in full.
	Open func(ctx context.Context, key string) (io.ReadCloser, error)
	// Room refuses bytes that would fill the disk; nil: there is always room.
	Room func(bytes int64) error
}

// Maker makes images of ramdisks.
type Maker struct {
	cfg Config

	mu        sync.Mutex
	templates map[string]*entry // guarded by mu; by id
}

// entry is a template that is there or in the making.
type entry struct {
	ready chan struct{} // closed when the others are set
	t     *template
	err   error
	used  time.Time // guarded by Maker.mu
}

// New makes a Maker and removes what an earlier process left.
func New(cfg Config) (*Maker, error) {
	if cfg.Room == nil {
		cfg.Room = func(int64) error { return nil }
	}
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("boot media: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("boot media: %w", err)
	}
	return &Maker{cfg: cfg, templates: map[string]*entry{}}, nil
}

// Image gives the ISO of a ramdisk for one machine and boot. The first one of
// a ramdisk takes as long as its files take to copy; who asks meanwhile waits.
func (m *Maker) Image(ctx context.Context, kernel, initramfs string, p Params) (*Image, error) {
	shim, grub, err := m.cfg.Loader.read()
	if err != nil {
		return nil, err
	}
	id := idOf(kernel, initramfs, shim, grub)
	m.mu.Lock()
	e := m.templates[id]
	first := e == nil
	if first {
		e = &entry{ready: make(chan struct{})}
		m.templates[id] = e
	}
	e.used = time.Now()
	m.mu.Unlock()
	if first {
		e.t, e.err = m.build(ctx, id, kernel, initramfs, shim, grub)
		m.built(id, e)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.t.fill(p)
}

// built ends the making of a template, and forgets one that failed and the
// oldest of too many. Images that are being read keep their open file.
func (m *Maker) built(id string, e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(e.ready)
	if e.err != nil {
		delete(m.templates, id)
		return
	}
	for len(m.templates) > keep {
		oldest := ""
		for other, x := range m.templates {
			if other != id && (oldest == "" || x.used.Before(m.templates[oldest].used)) {
				oldest = other
			}
		}
		x := m.templates[oldest]
		select {
		case <-x.ready:
		default:
			return // still in the making
		}
		delete(m.templates, oldest)
		if x.t != nil {
			_ = os.Remove(x.t.path) // at the latest the next start removes it
		}
	}
}

// bounded looks at the disk before the bytes read are written to it.
type bounded struct {
	io.Reader
	room func(bytes int64) error
	n    int64 // bytes read
	next int64 // look again when so many were read
}

// lookEvery is how many bytes are written between two looks at the disk.
const lookEvery = 16 << 20

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.n >= b.next {
		if err := b.room(lookEvery); err != nil {
			return 0, err
		}
		b.next = b.n + lookEvery
	}
	n, err := b.Reader.Read(p)
	b.n += int64(n)
	return n, err
}

func (m *Maker) build(ctx context.Context, id, kernel, initramfs string, shim, grub []byte) (_ *template, err error) {
	work, err := os.MkdirTemp(m.cfg.Dir, "work-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	k, err := m.cfg.Open(ctx, kernel)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	defer k.Close()
	i, err := m.cfg.Open(ctx, initramfs)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	defer i.Close()
	half, path := filepath.Join(work, "half.iso"), filepath.Join(m.cfg.Dir, id+".iso")
	kernelIn, initramfsIn := &bounded{Reader: k, room: m.cfg.Room}, &bounded{Reader: i, room: m.cfg.Room}
	whole := func() error { return m.cfg.Room(kernelIn.n + initramfsIn.n + 2*espSize) }
	if err := build(half, work, id, shim, grub, kernelIn, initramfsIn, whole); err != nil {
		return nil, err
	}
	if err := os.Rename(half, path); err != nil {
		return nil, err
	}
	return open(path, id)
}
