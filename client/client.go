package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// Config says whom to talk to and how. Addresses or Socket must be set.
type Config struct {
	// Addresses are API addresses of peers, "host:port", or "unix:/path".
	// The first is asked first.
	Addresses []string
	// Socket is the unix socket of a peer on this host; it is asked before
	// Addresses and needs no TLS.
	Socket string
	// TLS is needed for every address that is no unix socket.
	TLS *TLS
	// Timeout bounds a call, all tries together; default 30 s. The context of
	// the call may bound it further. Watches and waits are not bounded by it.
	Timeout time.Duration
	// AttemptTimeout bounds one try at one peer; default 10 s.
	AttemptTimeout time.Duration
	// Rounds is how often each peer is tried in one call; default 2.
	Rounds int
	// OnSwitch is told that a peer failed and another is tried; may be nil.
	// It must not block.
	OnSwitch func(from, to string, why error)
	// DialOptions are added to every connection; may be empty.
	DialOptions []grpc.DialOption
}

// Client is a connection to a cluster.
type Client struct {
	cfg       Config
	endpoints []*endpoint
	pause     func(ctx context.Context, d time.Duration) error // tests replace it
	// cutOffAfter is how often the peer of a stream is asked whether it still
	// has contact with a leader.
	cutOffAfter time.Duration

	mu      sync.Mutex
	current int    // guarded by mu; index of the endpoint that we stick to
	index   uint64 // guarded by mu; highest log index seen in an answer
}

// endpoint is one peer.
type endpoint struct {
	address string
	conn    *grpc.ClientConn
	api     api.IronringClient
	seen    uint64 // guarded by Client.mu; index that this peer is known to have applied
}

// New makes a Client. It does not connect: the first call does.
func New(cfg Config) (*Client, error) {
	addresses := cfg.Addresses
	if cfg.Socket != "" {
		addresses = append([]string{"unix:" + cfg.Socket}, addresses...)
	}
	if len(addresses) == 0 {
		return nil, errs.New(errs.Invalid, "no peer to talk to: Addresses and Socket are both empty")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.AttemptTimeout <= 0 {
		cfg.AttemptTimeout = 10 * time.Second
	}
	if cfg.Rounds <= 0 {
		cfg.Rounds = 2
	}
	c := &Client{cfg: cfg, pause: clock.Pause, cutOffAfter: 5 * time.Second}
	secure, err := cfg.TLS.credentials()
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		e, err := c.endpoint(a, secure)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.endpoints = append(c.endpoints, e)
	}
	return c, nil
}

func (c *Client) endpoint(address string, secure credentials.TransportCredentials) (*endpoint, error) {
	target, creds := "passthrough:///"+address, secure
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		path, err := filepath.Abs(strings.TrimPrefix(path, "//"))
		if err != nil {
			return nil, errs.New(errs.Invalid, "address %q: %w", address, err)
		}
		target, creds = "unix:"+path, insecure.NewCredentials()
	} else if !strings.Contains(address, ":") {
		return nil, errs.New(errs.Invalid, "address %q is not host:port", address)
	} else if secure == nil {
		return nil, errs.New(errs.Invalid, "address %s needs TLS: a CA certificate, and a client certificate and its key", address)
	}
	opts := append(rpc.DialOptions(), grpc.WithTransportCredentials(creds))
	if target != "passthrough:///"+address {
		opts = append(opts, grpc.WithAuthority("localhost"))
	}
	conn, err := grpc.NewClient(target, append(opts, c.cfg.DialOptions...)...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "address %q: %w", address, err)
	}
	return &endpoint{address: address, conn: conn, api: api.NewIronringClient(conn)}, nil
}

// Close ends all connections. Calls under way fail.
func (c *Client) Close() error {
	var all []error
	for _, e := range c.endpoints {
		all = append(all, e.conn.Close())
	}
	return errors.Join(all...)
}

// Address is that of the peer which the next call asks first.
func (c *Client) Address() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints[c.current].address
}

// Index is the highest log index that an answer named. Whoever has applied it
// has everything that this client wrote or saw.
func (c *Client) Index() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// start is the number of the endpoint that a call asks first.
func (c *Client) start() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// leave moves on from a failed endpoint and gives the next one.
func (c *Client) leave(i int, why error) int {
	next := (i + 1) % len(c.endpoints)
	c.mu.Lock()
	if c.current == i {
		c.current = next
	}
	c.mu.Unlock()
	if next != i && c.cfg.OnSwitch != nil {
		c.cfg.OnSwitch(c.endpoints[i].address, c.endpoints[next].address, why)
	}
	return next
}

// observe notes that a peer answered at an index.
func (c *Client) observe(e *endpoint, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.seen = max(e.seen, index)
	c.index = max(c.index, index)
}

// behind reports whether the peer is not known to have all that we saw, and
// the index that it must reach.
func (c *Client) behind(e *endpoint) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index, e.seen < c.index
}

// backoff is the wait before the n-th round (from 1): 100 ms doubled up to
// 1 s, with jitter, so that the clients of a dead peer do not come together.
func backoff(n int) time.Duration {
	d := min(100*time.Millisecond<<min(n-1, 5), time.Second)
	return d/2 + rand.N(d/2)
}

// readFile reads a PEM file of a TLS.
func readFile(what, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read %s: %w", what, err)
	}
	return data, nil
}
