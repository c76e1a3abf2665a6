// Package clienttest is a cluster in memory that speaks the client API, for
// tests of the client library and of the CLI. It has several peers over one
// state, and each peer can be made to fail, to lag behind or to die.
//
// It is no model of the real thing: work on a node is a script that a watch
// plays, one step for each event that is read, so that tests need no clock.
//
// A Cluster and its peers are safe for concurrent use. Start with New,
// Cluster.Peer and Peer.Serve.
package clienttest

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// Cluster is the state that all its peers serve.
type Cluster struct {
	// Now is the wall clock of all records, in Unix milliseconds.
	Now func() int64
	// ID is the cluster's.
	ID string

	mu        sync.Mutex
	index     uint64
	nodes     []*api.Node
	ports     []*api.Port
	networks  []*api.Network
	artifacts []*api.Artifact
	ramdisks  []*api.Ramdisk
	flows     map[string]*api.Flow     // by node id
	answers   map[string]proto.Message // by request id
	scripts   map[string][]Step        // by node id
	journal   []*api.JournalEvent
	changed   chan struct{} // closed at each change
	status    *api.ClusterStatusReply
	explain   *api.ExplainReply
	settings  *api.Settings // nil: the default ones
	audit     []string      // writes that were done, in order
	watchers  int           // streams of WatchNode that have not ended
}

// Step is one step of a script: it changes a node and its flow, or returns
// progress and changes nothing.
type Step func(n *api.Node, f *api.Flow) *api.Progress

// New makes an empty cluster.
func New() *Cluster {
	return &Cluster{
		Now:     func() int64 { return 1_800_000_000_000 },
		ID:      "test",
		flows:   map[string]*api.Flow{},
		answers: map[string]proto.Message{},
		scripts: map[string][]Step{},
		changed: make(chan struct{}),
		index:   10,
	}
}

// Script sets what happens to a node, given by id or name, while it is watched.
func (c *Cluster) Script(ref string, steps ...Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.findLocked(ref); n != nil {
		c.scripts[n.Id] = steps
		c.notifyLocked()
	}
}

// Change changes a node and its flow at once.
func (c *Cluster) Change(ref string, change func(n *api.Node, f *api.Flow)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changeLocked(c.findLocked(ref), change)
}

func (c *Cluster) changeLocked(n *api.Node, change func(n *api.Node, f *api.Flow)) {
	c.index++
	f := c.flows[n.Id]
	if f == nil {
		f = &api.Flow{NodeId: n.Id}
		c.flows[n.Id] = f
	}
	before := n.State
	change(n, f)
	if n.State != before {
		n.StateSinceMs = c.Now()
	}
	n.Rev++
	n.Index, f.Index = c.index, c.index
	c.notifyLocked()
}

func (c *Cluster) notifyLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Watchers is how many watches are under way. A client that has died is one
// until its connection is seen to be gone, and plays scripts until then.
func (c *Cluster) Watchers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watchers
}

// SetStatus sets the answer of ClusterStatus.
func (c *Cluster) SetStatus(s *api.ClusterStatusReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = s
}

// SetExplain sets what Explain adds to node and flow.
func (c *Cluster) SetExplain(e *api.ExplainReply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.explain = e
}

// Log adds a journal event.
func (c *Cluster) Log(ev *api.JournalEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal = append(c.journal, ev)
	c.notifyLocked()
}

// Done lists the writes that were carried out, in order.
func (c *Cluster) Done() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.audit)
}

// Index is the index of the last write.
func (c *Cluster) Index() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

func (c *Cluster) findLocked(ref string) *api.Node {
	for _, n := range c.nodes {
		if n.Id == ref || n.Name == ref && ref != "" {
			return n
		}
	}
	return nil
}

func (c *Cluster) nodeLocked(ref string) (*api.Node, error) {
	if n := c.findLocked(ref); n != nil {
		return n, nil
	}
	return nil, errs.About(errs.NotFound, ref, "no node %q", ref)
}

// Peer is one server over the cluster.
type Peer struct {
	api.UnimplementedIronringServer
	ID string
	c  *Cluster

	mu     sync.Mutex
	before func(ctx context.Context, method string, req any) error // guarded by mu
	after  func(method string) error                               // guarded by mu
	lag    uint64                                                  // guarded by mu
	stale  bool                                                    // guarded by mu
	calls  []string                                                // guarded by mu
	seen   []proto.Message                                         // guarded by mu
}

// Peer makes a peer.
func (c *Cluster) Peer(id string) *Peer { return &Peer{ID: id, c: c} }

// Before sets a function that may refuse a call before it is carried out; nil
// removes it. method is the last part of the name.
func (p *Peer) Before(f func(ctx context.Context, method string, req any) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = f
}

// After sets a function that may replace the answer of a call that was
// carried out by an error: an answer that got lost.
func (p *Peer) After(f func(method string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = f
}

// Lag makes the peer know nothing that happened after an index; 0 ends it.
func (p *Peer) Lag(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = index
}

// CutOff makes the peer one without contact with a leader: it lives and says
// so, and its watches tell nothing.
func (p *Peer) CutOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
}

func (p *Peer) isStale() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stale
}

// Calls lists the methods that were called, in order.
func (p *Peer) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Requests lists the unary requests, in order.
func (p *Peer) Requests() []proto.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// Serve answers calls on a listener. stop cuts all connections at once, as
// the death of the peer would, and returns when everything has ended.
func (p *Peer) Serve(lis net.Listener, opts ...grpc.ServerOption) (stop func()) {
	all := append(rpc.ServerOptions(nil), grpc.ChainUnaryInterceptor(p.unary), grpc.ChainStreamInterceptor(p.stream))
	srv := grpc.NewServer(append(all, opts...)...)
	api.RegisterIronringServer(srv, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The error of a listener that was stopped says nothing.
		_ = srv.Serve(lis)
	}()
	return func() {
		srv.Stop()
		<-done
	}
}

func (p *Peer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method, after, err := p.enter(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	rep, err := next(ctx, req)
	if err == nil && after != nil {
		err = after(method)
	}
	return rep, err
}

func (p *Peer) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if _, _, err := p.enter(ss.Context(), info.FullMethod, nil); err != nil {
		return err
	}
	return next(srv, ss)
}

func (p *Peer) enter(ctx context.Context, full string, req any) (method string, after func(string) error, err error) {
	method = full[strings.LastIndexByte(full, '/')+1:]
	p.mu.Lock()
	before := p.before
	after = p.after
	p.calls = append(p.calls, method)
	if m, ok := req.(proto.Message); ok {
		p.seen = append(p.seen, proto.Clone(m))
	}
	p.mu.Unlock()
	if before != nil {
		err = before(ctx, method, req)
	}
	return method, after, err
}

// caughtUp refuses what a peer that lags behind cannot answer.
func (p *Peer) caughtUp(read *api.ReadOptions) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lag != 0 && read.GetMinIndex() > p.lag {
		return errs.New(errs.Timeout, "index %d is not applied here, only %d", read.GetMinIndex(), p.lag)
	}
	return nil
}
