package clustertest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// errCut is what a dialer gets on the wrong side of a partition.
var errCut = errors.New("clustertest: the network is cut")

// fabric is the network between the peers: it knows which of them may talk.
type fabric struct {
	mu    sync.Mutex
	owner map[string]string  // guarded by mu; address -> peer
	side  map[string]int     // guarded by mu; peers of different sides cannot talk; absent is 0
	dead  map[string]bool    // guarded by mu; peers that can talk to nobody
	conns map[*wire]struct{} // guarded by mu
}

// wire is an open connection between two peers.
type wire struct {
	net.Conn
	f    *fabric
	from string
	// to is an address. Whose it is may become known later: others call a peer
	// that joins before it has said where it listens.
	to string
}

func newFabric() *fabric {
	return &fabric{owner: map[string]string{}, side: map[string]int{}, dead: map[string]bool{}, conns: map[*wire]struct{}{}}
}

// dialer is the Dial of one peer.
func (f *fabric) dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if f.cut(from, address) {
			return nil, errCut
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w := &wire{Conn: c, f: f, from: from, to: address}
		f.mu.Lock()
		f.conns[w] = struct{}{}
		f.mu.Unlock()
		if f.cut(w.from, w.to) { // cut while dialing
			w.Close()
			return nil, errCut
		}
		return w, nil
	}
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.f.mu.Lock()
	delete(w.f.conns, w)
	w.f.mu.Unlock()
	return w.Conn.Close()
}

// cut reports whether a peer cannot talk to who is at an address.
func (f *fabric) cut(from, address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cutLocked(from, address)
}

func (f *fabric) cutLocked(from, address string) bool {
	to := f.owner[address]
	return from != to && (f.dead[from] || f.dead[to] || f.side[from] != f.side[to])
}

// change changes who may talk and closes the connections of those who may not.
func (f *fabric) change(do func()) {
	f.mu.Lock()
	do()
	var gone []*wire
	for w := range f.conns {
		if f.cutLocked(w.from, w.to) || f.dead[w.from] {
			gone = append(gone, w)
		}
	}
	f.mu.Unlock()
	for _, w := range gone {
		w.Close()
	}
}
