package artifact

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// Config of a Keeper. Fields without a default are required.
type Config struct {
	Dir         string // of the files; nobody else uses it
	DiskPercent int    // how full the disk may get, 0: DefaultDiskPercent
	Self        string // member id of this peer
	Store       *fsm.Store
	Propose     func(ctx context.Context, cmd *api.Command) (*api.Result, error)
	PeerConn    func(id string) (*grpc.ClientConn, error)
	Clock       clock.Clock
	Logger      *slog.Logger // nil: discards

	// Usage tells how full the disk is; nil: as the file system says.
	Usage func(dir string) (used, total uint64, err error)
	// Caller names the member that calls; nil: as its certificate says.
	Caller func(ctx context.Context) (string, error)
	// Origin is how the origins of images are asked; nil: as package fetch does.
	Origin http.RoundTripper
	// Period is that of the look at files and records; 0: a minute.
	Period time.Duration
	// Poll is the pause between two questions to a peer that downloads an image
	// or takes a copy; 0: a second.
	Poll time.Duration
	// Unrecorded is how long a file without a record is kept (hold.go); 0: an
	// hour.
	Unrecorded time.Duration
	// ScrubRate is the pace of the check of all files in bytes per second; 0:
	// 8 MiB/s.
	ScrubRate int64
	// ScrubEvery is the time between two checks of all files; 0: a day.
	ScrubEvery time.Duration
}

// Keeper is the artifacts of one peer: its files, their records, and what it
// gets from and gives to other peers. It implements api.ArtifactsServer.
type Keeper struct {
	api.UnimplementedArtifactsServer
	cfg   Config
	store *Store
	log   *slog.Logger
	jobs  chan job
	reads chan struct{} // a place for each file being sent to a peer

	mu      sync.Mutex
	flights map[string]*flight       // guarded by mu; by the hex digits of what is known of the file
	images  map[string]*image        // guarded by mu; by checksum
	asked   map[string]moment        // guarded by mu; file: when it was last wanted or first seen without a record
	pins    map[string]int           // guarded by mu; file: how many are at work with it
	retry   map[string]time.Duration // guarded by mu; digest: not to be fetched for the leader before, elapsed
}

// job is background work, done by Run.
type job func(ctx context.Context)

// maxReads bounds the files that are sent to peers at once.
const maxReads = 32

// New opens the files. Run must follow: until then nothing is fetched.
func New(cfg Config) (*Keeper, error) {
	def(&cfg.Period, time.Minute)
	def(&cfg.Poll, time.Second)
	def(&cfg.Unrecorded, time.Hour)
	def(&cfg.ScrubRate, 8<<20)
	def(&cfg.ScrubEvery, 24*time.Hour)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Caller == nil {
		cfg.Caller = callingPeer
	}
	store, err := OpenStore(cfg.Dir, cfg.DiskPercent, cfg.Usage)
	if err != nil {
		return nil, err
	}
	return &Keeper{
		cfg: cfg, store: store, log: cfg.Logger, jobs: make(chan job), reads: make(chan struct{}, maxReads),
		flights: map[string]*flight{}, images: map[string]*image{}, asked: map[string]moment{}, pins: map[string]int{}, retry: map[string]time.Duration{},
	}, nil
}

func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func callingPeer(ctx context.Context) (string, error) {
	id, err := pki.IdentityFromContext(ctx)
	if err != nil || id.Role != pki.RolePeer {
		return "", errs.New(errs.Denied, "only peers may call this")
	}
	return id.Name, nil
}

// Run keeps files and records in line, checks the files slowly, and does the
// transfers that others ask for, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { k.follow(ctx); return nil })
	g.Go(func() error { k.scrub(ctx); return nil })
	g.Go(func() error {
		for {
			select {
			case j := <-k.jobs:
				g.Go(func() error { j(ctx); return nil })
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// start has Run do some work.
func (k *Keeper) start(ctx context.Context, j job) error {
	select {
	case k.jobs <- j:
		return nil
	case <-ctx.Done():
		return errs.New(errs.Timeout, "this peer is stopping: %w", ctx.Err())
	}
}

// Open opens a file for a machine, for as long as ctx lasts. When it is not
// here but a record names it, it is fetched from another peer, and can be read
// while it comes; a peer whose disk is full passes it on without keeping it.
// errs.NotFound when there is no such artifact.
func (k *Keeper) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	if f, err := k.store.Open(digest); err == nil {
		return f, nil
	} else if !errors.Is(err, errs.NotFound) {
		return nil, err
	}
	a := k.cfg.Store.View().Artifact(digest)
	if a == nil {
		return nil, errs.New(errs.NotFound, "no such artifact")
	}
	fl, err := k.fetch(ctx, checksum{"sha256", digest}, int64(a.GetSize()), nil, nil) //nolint:gosec // sizes of files
	if err != nil {
		return nil, err
	}
	select {
	case <-fl.begun:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if fl.in != nil {
		if r, err := fl.in.follow(ctx); err == nil {
			return r, nil
		}
	}
	if errors.Is(fl.failure(), errs.Busy) {
		return k.passOn(ctx, a)
	}
	f, err := k.store.Open(digest) // it may have arrived just now
	if err == nil {
		return f, nil
	}
	return nil, errors.Join(fl.failure(), err)
}

// Has reports whether a file is here in full.
func (k *Keeper) Has(digest string) bool { _, ok := k.store.Size(digest); return ok }

// Room refuses bytes that would fill the disk above the bound of the artifacts,
// errs.Busy: for what else is kept beside them.
func (k *Keeper) Room(bytes int64) error { return k.store.Room(bytes) }

// propose commits operations of this peer.
func (k *Keeper) propose(ctx context.Context, reason string, ops ...*api.Op) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := k.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + k.cfg.Self, Reason: reason, WallMs: k.cfg.Clock.Now().UnixMilli()},
		Ops:  ops,
	})
	return err
}

// say commits what is true of this peer's copy.
func (k *Keeper) say(ctx context.Context, digest string, state api.ArtifactCopy_State) error {
	err := k.propose(ctx, "copy of an artifact", &api.Op{Op: &api.Op_ArtifactCopy{ArtifactCopy: &api.ArtifactCopy{
		Digest: digest, MemberId: k.cfg.Self, State: state,
	}}})
	if errors.Is(err, errs.NotFound) {
		return nil // dropped meanwhile
	}
	return err
}

// live are the other members that can be expected to answer, this peer's
// successor first, so that the copies spread.
func (k *Keeper) live() []string {
	v := k.cfg.Store.View()
	var after, before []string
	for _, m := range v.Members() { // in order of id
		id := m.GetId()
		if id == k.cfg.Self || m.GetPhase() != api.Member_READY || v.LiveLease(id) == nil {
			continue
		}
		if id > k.cfg.Self {
			after = append(after, id)
		} else {
			before = append(before, id)
		}
	}
	return slices.Concat(after, before)
}
