package journal

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
)

// Copier sends this peer's own events to one other peer: best effort, batched,
// never holding anybody up.
type Copier struct {
	// Target names the peer that gets the copy of a node's events; "" for none.
	Target func(node string) string
	// Send hands a batch to a peer.
	Send   func(ctx context.Context, peer string, events []*api.JournalEvent) error
	Logger *slog.Logger

	queue chan *api.JournalEvent
}

const (
	copyEvery   = 100 * time.Millisecond
	copyBatch   = 256
	copyTimeout = 2 * time.Second
)

// NewCopier makes a Copier; Run makes it work.
func NewCopier(target func(string) string, send func(context.Context, string, []*api.JournalEvent) error, logger *slog.Logger) *Copier {
	return &Copier{Target: target, Send: send, Logger: logger, queue: make(chan *api.JournalEvent, queueLength)}
}

// Add queues an event; it is dropped when the queue is full.
func (c *Copier) Add(ev *api.JournalEvent) {
	select {
	case c.queue <- ev:
	default:
	}
}

// Run sends batches until ctx ends.
func (c *Copier) Run(ctx context.Context) error {
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	batch := map[string][]*api.JournalEvent{}
	n := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-c.queue:
			if peer := c.Target(ev.GetNodeId()); peer != "" {
				batch[peer] = append(batch[peer], ev)
				n++
			}
			if n < copyBatch {
				continue
			}
		case <-tick.C:
		}
		if n == 0 {
			continue
		}
		c.flush(ctx, batch)
		clear(batch)
		n = 0
	}
}

// flush sends to all peers at once, so that a silent one delays only its own.
func (c *Copier) flush(ctx context.Context, batch map[string][]*api.JournalEvent) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	var all sync.WaitGroup
	for peer, evs := range batch {
		all.Go(func() {
			if err := c.Send(ctx, peer, evs); err != nil {
				c.Logger.Debug("journal events not copied", "peer", peer, "count", len(evs), "err", err)
			}
		})
	}
	all.Wait()
}
