package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironring/ironring/cluster/form"
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

// Form says how equal peers make their cluster.
type Form struct {
	ClusterID string
	Join      []string // cluster addresses, host:port, of every peer that may take part, this one included
	Expect    int      // so many must agree: more than half of Join
	Key       []byte   // shared secret, 32 bytes or more
}

// validate names the field at fault.
func (f *Form) validate() error {
	switch {
	case !validID.MatchString(f.ClusterID):
		return errs.About(errs.Invalid, "cluster_id", "cluster_id %q: 1 to 63 lower case letters, digits, '.' and '-' are allowed", f.ClusterID)
	case net.ParseIP(f.ClusterID) != nil:
		return errs.About(errs.Invalid, "cluster_id", "cluster_id %q must not be an IP address", f.ClusterID)
	case len(f.Key) < 32:
		return errs.About(errs.Invalid, "key_file", "the shared key has %d bytes, at least 32 are needed: make one with `openssl rand -base64 32`", len(f.Key))
	case f.Expect < 1 || f.Expect > len(f.Join):
		return errs.About(errs.Invalid, "expect", "expect is %d: it must be 1 to the %d peers of join", f.Expect, len(f.Join))
	case 2*f.Expect <= len(f.Join):
		return errs.About(errs.Invalid, "expect", "expect is %d of %d: it must be more than half, or two clusters could form", f.Expect, len(f.Join))
	}
	for i, a := range f.Join {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return errs.About(errs.Invalid, "join", "join: %q is not host:port", a)
		}
		if slices.Contains(f.Join[:i], a) {
			return errs.About(errs.Invalid, "join", "join: %q is listed twice", a)
		}
	}
	return nil
}

func (f *Form) params() formParams {
	join := slices.Sorted(slices.Values(f.Join))
	return formParams{ClusterID: f.ClusterID, Expect: f.Expect, Join: join}
}

// former is one peer while it forms.
type former struct {
	cfg    Config
	dir    *dataDir
	keys   formKeys
	params formParams
	log    *slog.Logger

	self form.Founder // set by load
	mu   sync.Mutex
	me   form.Acceptor // guarded by mu; as on disk

	said map[string]string // of the loop's goroutine: what was said last about each address
}

// form returns how this peer goes on: found, or join with a token.
func (d *dataDir) form(ctx context.Context, cfg Config, l net.Listener) (found bool, token string, err error) {
	keys, err := newFormKeys(cfg.Form.Key)
	if err != nil {
		return false, "", err
	}
	f := &former{cfg: cfg, dir: d, keys: keys, params: cfg.Form.params(), log: cfg.Logger, said: map[string]string{}}
	if err := f.load(); err != nil {
		return false, "", err
	}
	f.self = f.me.Self
	conf, err := formServerTLS()
	if err != nil {
		return false, "", err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return false, "", errs.New(errs.Internal, "forming needs a TCP listener, not %T", l)
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
	var t joinToken
	var until time.Time
	for try := 1; ; try++ {
		if time.Now().After(until) {
			found, token, err := d.form(ctx, cfg, l)
			switch {
			case err != nil:
				return err
			case found:
				return d.found(cfg, cfg.Form.ClusterID)
			}
			if t, err = parseToken(token); err != nil {
				return err
			}
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
		select {
		case <-ctx.Done():
			return errs.New(errs.NoQuorum, "join the cluster: stopped: %w", err)
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

// load reads what was promised before, or makes this data directory an
// acceptor.
func (f *former) load() error {
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
func (f *former) store(a form.Acceptor) error {
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
func (f *former) serve(ctx context.Context, l *net.TCPListener, conf *tls.Config) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxFormConns)
	for {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			raw.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer raw.Close()
			stop := context.AfterFunc(ctx, func() { raw.Close() })
			defer stop()
			conn := tls.Server(raw, conf)
			hctx, cancel := context.WithTimeout(ctx, formTimeout)
			defer cancel()
			if conn.HandshakeContext(hctx) != nil {
				return
			}
			if err := formServe(ctx, conn, f.keys, f.answer); errors.Is(err, errs.Denied) {
				f.log.Warn("refused a caller", "from", raw.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// answer is the acceptor.
func (f *former) answer(_ context.Context, req formRequest) formReply {
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

// loop greets all peers until there is a cluster to join, or this peer was
// chosen to found it.
func (f *former) loop(ctx context.Context) (found bool, token string, err error) {
	var since time.Time // enough peers are there
	for {
		seen, members := f.greet(ctx)
		for _, address := range members {
			if token := f.token(ctx, address); token != "" {
				return false, token, nil
			}
		}
		if len(members) == 0 && len(seen) >= f.params.Expect {
			if since.IsZero() {
				since = time.Now()
			}
			if f.smallest(seen) || time.Since(since) > formPatience+rand.N(formPatience) {
				chosen, ok := f.drive(ctx, seen)
				switch {
				case ok && chosen == f.self:
					f.log.Info("this peer founds the cluster", "cluster", f.params.ClusterID)
					return true, "", nil
				case ok:
					f.chosen(chosen, seen)
				}
				since = time.Now()
			}
		} else {
			since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return false, "", errs.New(errs.NoQuorum, "form a cluster: stopped while waiting for the other peers: %w", ctx.Err())
		case <-time.After(formRound + rand.N(formRound)):
		}
	}
}

// greet asks every address who is there: by instance, those that may take part
// in the agreement; and where there are members of the cluster.
func (f *former) greet(ctx context.Context) (seen map[string]form.Promise, members []string) {
	seen = map[string]form.Promise{}
	ids := map[string]string{}
	for address, reply := range f.all(ctx, formRequest{Kind: "hello"}) {
		switch {
		case reply.Params.ClusterID != f.params.ClusterID:
			f.say(address, slog.LevelWarn, fmt.Sprintf("it is for cluster %q, this peer for %q", reply.Params.ClusterID, f.params.ClusterID))
		case reply.Member:
			members = append(members, address)
		case !reflect.DeepEqual(reply.Params, f.params):
			f.say(address, slog.LevelWarn, fmt.Sprintf("its file differs: expect %d of %v there, %d of %v here", reply.Params.Expect, reply.Params.Join, f.params.Expect, f.params.Join))
		case ids[reply.Self.ID] != "" && ids[reply.Self.ID] != reply.Self.Instance:
			f.say(address, slog.LevelError, fmt.Sprintf("two peers call themselves %q: set id", reply.Self.ID))
		default:
			f.say(address, slog.LevelInfo, "peer "+reply.Self.ID+" is there")
			ids[reply.Self.ID] = reply.Self.Instance
			seen[reply.Self.Instance] = reply.Promise
		}
	}
	if _, ok := seen[f.self.Instance]; !ok {
		// Not one of join, or nobody can call us: such a peer may only join.
		f.say("self", slog.LevelWarn, "none of the addresses of join leads to this peer: it waits for a cluster that it can join")
		return nil, members
	}
	delete(f.said, "self")
	slices.Sort(members)
	return seen, members
}

// say logs what changed about an address.
func (f *former) say(address string, level slog.Level, what string) {
	if f.said[address] != what {
		f.said[address] = what
		f.log.Log(context.Background(), level, "forming a cluster: "+what, "address", address)
	}
}

// all asks every address the same, and gives the answers.
func (f *former) all(ctx context.Context, req formRequest) map[string]*formReply {
	req.Params, req.From = f.params, form.Founder{ID: f.cfg.ID}
	var mu sync.Mutex
	out, failed := map[string]*formReply{}, map[string]error{}
	var wg sync.WaitGroup
	for _, address := range f.params.Join {
		wg.Go(func() {
			reply, err := formAsk(ctx, f.cfg.Dial, f.keys, address, req)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[address] = err
			} else {
				out[address] = reply
			}
		})
	}
	wg.Wait()
	for address, err := range failed {
		level := slog.LevelInfo
		if errors.Is(err, errs.Denied) {
			level = slog.LevelWarn
		}
		if ctx.Err() == nil && req.Kind == "hello" {
			f.say(address, level, err.Error())
		}
	}
	return out
}

// smallest reports whether this peer has the smallest id of all that are seen.
func (f *former) smallest(seen map[string]form.Promise) bool {
	for _, p := range seen {
		if strings.Compare(p.Self.ID, f.cfg.ID) < 0 {
			return false
		}
	}
	return true
}

// drive makes one attempt to agree. It asks each address, and counts each
// acceptor once.
func (f *former) drive(ctx context.Context, seen map[string]form.Promise) (form.Founder, bool) {
	f.mu.Lock()
	b := form.Ballot{N: f.me.Promised.N, By: f.self.Instance}
	for _, p := range seen {
		b.N = max(b.N, p.Promised.N)
	}
	b.N++
	next, _ := f.me.Prepare(b)
	err := f.store(next) // so that this ballot is never used again
	f.mu.Unlock()
	if err != nil {
		f.log.Error("could not store a promise, will try again", "err", err)
		return form.Founder{}, false
	}
	r := form.NewRound(b, f.params.Expect)
	var founder form.Founder
	ready := false
	for _, reply := range f.all(ctx, formRequest{Kind: "prepare", Ballot: b}) {
		if reply.Error == "" && !reply.Member {
			founder, ready = r.Promised(reply.Promise)
		}
	}
	if !ready {
		return form.Founder{}, false
	}
	chosen := false
	for _, reply := range f.all(ctx, formRequest{Kind: "accept", Ballot: b, Founder: founder}) {
		if reply.Error == "" && reply.OK {
			if _, now := r.Accepted(reply.Self.Instance); now {
				chosen = true
			}
		}
	}
	return founder, chosen
}

// chosen says whom everybody waits for.
func (f *former) chosen(who form.Founder, seen map[string]form.Promise) {
	for instance, p := range seen {
		if p.Self.ID == who.ID && instance != who.Instance {
			f.say("chosen", slog.LevelError, fmt.Sprintf("peer %s was chosen to found the cluster, but its data directory is another one now: "+
				"if no peer is a member yet, stop all peers, remove %s from their data directories and start again", who.ID, formFile))
			return
		}
	}
	f.say("chosen", slog.LevelInfo, "peer "+who.ID+" founds the cluster")
}

// token asks a member for a join token, "" when it has none for us now.
func (f *former) token(ctx context.Context, address string) string {
	reply, err := formAsk(ctx, f.cfg.Dial, f.keys, address, formRequest{Kind: "token", Params: f.params, From: form.Founder{ID: f.cfg.ID}})
	switch {
	case err != nil:
		f.say(address, slog.LevelInfo, err.Error())
	case reply.Token == "":
		f.say(address, slog.LevelInfo, "a member has no join token for us yet: "+reply.Error)
	default:
		return reply.Token
	}
	return ""
}
