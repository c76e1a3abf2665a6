package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironring/ironring/cluster/form"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// loop greets all peers until there is a cluster to join, or this peer was
// chosen to found it.
func (f *candidate) loop(ctx context.Context) (formed, error) {
	var since time.Time // enough peers are there
	for {
		f.readKeys()
		seen, members := f.greet(ctx)
		for _, address := range members {
			if token := f.token(ctx, address); token != "" {
				return formed{token: token, key: f.keys.id}, nil
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
					return formed{found: true}, nil
				case ok:
					f.chosen(chosen, seen)
				}
				since = time.Now()
			}
		} else {
			since = time.Time{}
		}
		if err := clock.Pause(ctx, formRound+rand.N(formRound)); err != nil {
			return formed{}, errs.New(errs.NoQuorum, "form a cluster: stopped while waiting for the other peers: %w", err)
		}
	}
}

// readKeys takes the shared key as it is now; with one that cannot be read
// nobody answers.
func (f *candidate) readKeys() {
	keys, err := f.cfg.Form.keys()
	if err != nil {
		f.say("key_file", slog.LevelWarn, err.Error())
		keys = noFormKeys()
	} else {
		delete(f.said, "key_file")
	}
	f.keys = keys
}

// greet asks every address who is there: by instance, those that may take part
// in the agreement; and where there are members of the cluster.
func (f *candidate) greet(ctx context.Context) (seen map[string]form.Promise, members []string) {
	seen = map[string]form.Promise{}
	ids := map[string]string{}
	for address, reply := range f.all(ctx, formRequest{Kind: "hello"}) {
		switch {
		case reply.Refused != "":
			// There is a cluster: nobody founds another one.
			f.say(address, slog.LevelWarn, reply.Refused)
			members = append(members, address)
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
func (f *candidate) say(address string, level slog.Level, what string) {
	if f.said[address] != what {
		f.said[address] = what
		f.log.Log(context.Background(), level, "forming a cluster: "+what, "address", address)
	}
}

// all asks every address the same, and gives the answers.
func (f *candidate) all(ctx context.Context, req formRequest) map[string]*formReply {
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
func (f *candidate) smallest(seen map[string]form.Promise) bool {
	for _, p := range seen {
		if strings.Compare(p.Self.ID, f.cfg.ID) < 0 {
			return false
		}
	}
	return true
}

// drive makes one attempt to agree. It asks each address, and counts each
// acceptor once.
func (f *candidate) drive(ctx context.Context, seen map[string]form.Promise) (form.Founder, bool) {
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
func (f *candidate) chosen(who form.Founder, seen map[string]form.Promise) {
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
func (f *candidate) token(ctx context.Context, address string) string {
	reply, err := formAsk(ctx, f.cfg.Dial, f.keys, address, formRequest{Kind: "token", Params: f.params, From: form.Founder{ID: f.cfg.ID}})
	switch {
	case err != nil:
		f.say(address, slog.LevelInfo, err.Error())
	case reply.Refused != "":
		f.say(address, slog.LevelWarn, reply.Refused)
	case reply.Token == "":
		f.say(address, slog.LevelInfo, "a member has no join token for us yet: "+reply.Error)
	default:
		return reply.Token
	}
	return ""
}
