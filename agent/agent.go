package agent

import (
	"context"
	"crypto"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// Config is what an agent needs. Line, Hardware and StateDir must be set.
type Config struct {
	Line     Line
	Hardware Hardware
	// StateDir keeps what must outlive the agent's own restart within one
	// boot of the machine. It is made when missing.
	StateDir string
	Logger   *slog.Logger // nil: nothing is logged here; peers get the lines anyway
	Version  string       // of this build, shown to people

	// Dial opens connections to peers; nil means TCP with a 5 s limit.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// HTTP fetches images; nil means a transport of the agent's own.
	HTTP http.RoundTripper

	RedialMin    time.Duration // first pause between attempts, 100 ms
	RedialMax    time.Duration // longest pause between attempts, 2 s
	RefusedLimit time.Duration // enrolment refused by all peers for so long ends Run, 2 min

	ImageStall      time.Duration // a connection without a byte for so long is given up, 15 s
	ImageNoProgress time.Duration // an image without a byte for so long fails, 2 min
}

// Validate names the field at fault.
func (c *Config) Validate() error {
	if err := c.Line.Validate(); err != nil {
		return err
	}
	if c.Hardware == nil {
		return errs.New(errs.Invalid, "agent config: Hardware is not set")
	}
	if c.StateDir == "" {
		return errs.New(errs.Invalid, "agent config: StateDir is not set")
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		d := net.Dialer{Timeout: 5 * time.Second}
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&c.RedialMin, 100 * time.Millisecond}, {&c.RedialMax, 2 * time.Second}, {&c.RefusedLimit, 2 * time.Minute},
		{&c.ImageStall, 15 * time.Second}, {&c.ImageNoProgress, 2 * time.Minute},
	} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
}

// agent is one run of Run.
type agent struct {
	cfg   Config
	hw    Hardware
	log   *slog.Logger
	logs  *logQueue
	clock *serverClock
	book  *book
	table map[string]command

	key   crypto.Signer
	cert  *tls.Certificate // of the goroutine that enrols and dials
	ident Identity

	machine chan struct{}  // of size one: held by the command that may change the machine
	work    sync.WaitGroup // running commands
	last    chan lastAct   // of size one: what to do when all else has ended
	drain   chan struct{}  // closed when the conversation must end in good order

	peersMu sync.Mutex
	peers   []string // guarded by peersMu; those we heard of last, then those of the kernel line
}

// lastAct is what a reboot or power-off command leaves for the end of Run.
type lastAct struct {
	what string
	do   func() error
}

// Run enrols the machine and serves its holder until ctx ends (the result is
// then ctx's error), until the holder has it rebooted or powered off (nil once
// Hardware has accepted that), or until the cluster refuses it for good. When
// it returns, everything that it started has ended.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.setDefaults()
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return errs.New(errs.Internal, "agent state directory: %w", err)
	}
	a := &agent{
		cfg: cfg, hw: cfg.Hardware, clock: &serverClock{}, logs: newLogQueue(1000),
		machine: make(chan struct{}, 1), last: make(chan lastAct, 1), drain: make(chan struct{}),
		peers: cfg.Line.Peers,
	}
	a.log = slog.New(&teeHandler{local: cfg.Logger.Handler(), queue: a.logs, clock: a.clock})
	a.table = a.commands()
	var err error
	if a.key, err = loadKey(cfg.StateDir, cfg.Line); err != nil {
		return err
	}
	a.book = openBook(cfg.StateDir, cfg.Line, a.log)
	if a.ident, err = a.hw.Identity(ctx); err != nil {
		return errs.New(errs.KindOf(err), "read the machine's identity: %w", err)
	}
	return a.run(ctx)
}

func (a *agent) run(ctx context.Context) error {
	// Commands and conversation end in this order: a command whose end nobody
	// can be told is worse than a stream that ends a little later.
	workCtx, stopWork := context.WithCancel(ctx)
	talkCtx, stopTalk := context.WithCancel(ctx)
	defer stopTalk()
	talked := make(chan error, 1)
	go func() { talked <- a.talk(talkCtx, workCtx) }()

	var act *lastAct
	var err error
	select {
	case l := <-a.last:
		act = &l
		close(a.drain)
		// A peer that does not end the stream must not keep the machine up.
		t := time.AfterFunc(5*time.Second, stopTalk)
		<-talked
		t.Stop()
	case err = <-talked:
	}
	a.book.close() // no command starts from here on
	stopWork()
	a.work.Wait()
	if act == nil {
		return err
	}
	a.log.Info("the agent ends", "then", act.what)
	return act.do()
}

// peerList is where to dial, best guess first.
func (a *agent) peerList() []string {
	a.peersMu.Lock()
	defer a.peersMu.Unlock()
	return append([]string(nil), a.peers...)
}

// learnPeers puts the addresses that a peer told us before those of the
// kernel line, which stay as a way back.
func (a *agent) learnPeers(told []string) {
	if len(told) == 0 {
		return
	}
	var list []string
	seen := map[string]bool{}
	for _, p := range append(append([]string(nil), told...), a.cfg.Line.Peers...) {
		if _, _, err := net.SplitHostPort(p); err == nil && !seen[p] {
			seen[p] = true
			list = append(list, p)
		}
	}
	a.peersMu.Lock()
	defer a.peersMu.Unlock()
	a.peers = list
}

// pauses are those between attempts: the next is twice as long, from min to
// max, and each is drawn between half of it and all of it.
type pauses struct {
	min, max, cur time.Duration
}

func (b *pauses) reset() { b.cur = 0 }

// wait pauses; it returns early with ctx's error, or when stop is closed.
func (b *pauses) wait(ctx context.Context, stop <-chan struct{}) error {
	b.cur = max(b.min, min(2*b.cur, b.max))
	t := time.NewTimer(b.cur/2 + rand.N(b.cur/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-stop:
		return nil
	case <-t.C:
		return nil
	}
}
