package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/ironring/ironring/cluster/form"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Forming: peers with the same configuration find each other, agree which of
// them founds the cluster, and the others join it (ADR 0014). Package form has
// the agreement; here are its disk, its network and its patience.

// formFile is what this peer has promised; kept after the cluster is there.
const formFile = "formation.json"

const (
	formRound    = 300 * time.Millisecond // between rounds of greetings, and as much again at random
	formPatience = 4 * time.Second        // until another than the smallest id drives the agreement
	maxFormConns = 32
)

// candidate is one peer while it forms a cluster.
type candidate struct {
	cfg    Config
	dir    *dataDir
	params formParams
	log    *slog.Logger

	self form.Founder // set by load
	mu   sync.Mutex
	me   form.Acceptor // guarded by mu; as on disk

	// Of the loop's goroutine:
	keys formKeys          // read for each round
	said map[string]string // what was said last about each address
}

// formed is how a candidate goes on: it founds, or joins.
type formed struct {
	found bool
	token string // to join with
	key   string // id of the shared key that got it
}

// form returns when it is clear how this peer goes on.
func (d *dataDir) form(ctx context.Context, cfg Config, l net.Listener) (formed, error) {
	f := &candidate{cfg: cfg, dir: d, params: cfg.Form.params(), log: cfg.Logger, said: map[string]string{}}
	if err := f.load(); err != nil {
		return formed{}, err
	}
	f.self = f.me.Self
	conf, err := formServerTLS()
	if err != nil {
		return formed{}, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return formed{}, errs.New(errs.Internal, "forming needs a TCP listener, not %T", l)
	}
	sctx, stop := context.WithCancel(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		f.serve(sctx, tcp, conf)
	}()
	defer func() {
		stop()
		_ = tcp.SetDeadline(time.Now()) // ends Accept and leaves the listener open
		<-served
		_ = tcp.SetDeadline(time.Time{})
	}()
	f.log.Info("waiting for the other peers to form a cluster", "cluster", f.params.ClusterID, "expect", f.params.Expect, "peers", f.params.Join)
	return f.loop(ctx)
}

// How long a token of forming lives, and for how much of that it is used: a
// peer that cannot join for a while must not fill the table of tokens.
const (
	formTokenLife = 10 * time.Minute
	formTokenUse  = 8 * time.Minute
	formJoinPause = 30 * time.Second // the longest between two tries
)

// formAndJoin makes this peer a member, by forming. What can pass is tried
// again, with the same token while it is good.
func (d *dataDir) formAndJoin(ctx context.Context, cfg Config, l net.Listener) error {
	if err := cfg.Form.checkJoin(cfg.Advertised.GetClusterAddress()); err != nil {
		return err
	}
	var t joinToken
	var until time.Time
	for try := 1; ; try++ {
		if time.Now().After(until) {
			next, err := d.form(ctx, cfg, l)
			switch {
			case err != nil:
				return err
			case next.found:
				return d.found(cfg, cfg.Form.ClusterID)
			}
			if t, err = parseToken(next.token); err != nil {
				return err
			}
			cfg.Advertised.FormKey = next.key
			if t.ClusterID != cfg.Form.ClusterID {
				return errs.New(errs.Denied, "a member of cluster %s gave a join token for cluster %s", cfg.Form.ClusterID, t.ClusterID)
			}
			until = time.Now().Add(formTokenUse)
		}
		err := d.join(ctx, cfg, t)
		if err == nil {
			return nil
		}
		switch errs.KindOf(err) {
		case errs.Unreachable, errs.Timeout, errs.NoQuorum, errs.NotLeader, errs.Busy:
			cfg.Logger.Warn("could not join the cluster, will try again", "err", err)
		default:
			return err
		}
		wait := min(time.Duration(try)*time.Second, formJoinPause)
		if clock.Pause(ctx, wait/2+rand.N(wait)) != nil {
			return errs.New(errs.NoQuorum, "join the cluster: stopped: %w", err)
		}
	}
}

// load reads what was promised before, or makes this data directory an
// acceptor.
func (f *candidate) load() error {
	if f.dir.has(formFile) {
		raw, err := f.dir.read(formFile)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &f.me); err != nil || f.me.Self.Instance == "" {
			return f.dir.damaged(formFile, "is damaged")
		}
		if f.me.Self.ID != f.cfg.ID {
			return errs.About(errs.Invalid, "id", "data directory %s took part in forming as %s, not as %s", f.dir.path, f.me.Self.ID, f.cfg.ID)
		}
		return nil
	}
	return f.store(form.Acceptor{Self: form.Founder{ID: f.cfg.ID, Instance: randomHex(16)}})
}

// store keeps what was promised; only then may it be told.
func (f *candidate) store(a form.Acceptor) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return errs.New(errs.Internal, "encode promise: %w", err)
	}
	if err := f.dir.write(formFile, append(raw, '\n')); err != nil {
		return err
	}
	f.me = a
	return nil
}

// serve answers other peers until the context ends.
func (f *candidate) serve(ctx context.Context, l *net.TCPListener, conf *tls.Config) {
	failed := func(err error) { f.log.Warn("cannot accept connections of peers, will try again", "err", err) }
	_ = accept(ctx, l, maxFormConns, failed, func(raw net.Conn) { // closed: the end
		defer raw.Close()
		stop := context.AfterFunc(ctx, func() { raw.Close() })
		defer stop()
		conn := tls.Server(raw, conf)
		hctx, cancel := context.WithTimeout(ctx, formTimeout)
		defer cancel()
		if conn.HandshakeContext(hctx) != nil {
			return
		}
		keys, err := f.cfg.Form.keys()
		if err == nil {
			err = formServe(ctx, conn, keys, f.answer)
		}
		if errors.Is(err, errs.Denied) || errors.Is(err, errs.Invalid) {
			f.log.Warn("refused a caller", "from", raw.RemoteAddr().String(), "err", err)
		}
	})
}

// answer is the acceptor.
func (f *candidate) answer(_ context.Context, req formRequest) formReply {
	f.mu.Lock()
	defer f.mu.Unlock()
	reply := formReply{Self: f.me.Self, Params: f.params}
	if !reflect.DeepEqual(req.Params, f.params) {
		reply.Error = "its configuration differs"
		return reply
	}
	var next form.Acceptor
	switch req.Kind {
	case "hello":
		_, reply.Promise = f.me.Prepare(form.Ballot{}) // only a look
		return reply
	case "prepare":
		next, reply.Promise = f.me.Prepare(req.Ballot)
	case "accept":
		next, reply.OK = f.me.Accept(req.Ballot, req.Founder)
	default:
		reply.Error = "there is no cluster yet"
		return reply
	}
	if next != f.me {
		if err := f.store(next); err != nil {
			f.log.Error("could not store a promise, will be asked again", "err", err)
			return formReply{Self: f.me.Self, Params: f.params, Error: "it could not store its promise"}
		}
	}
	return reply
}
