package service_test

import (
	"log/slog"
	"testing"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

func TestBootRecord(t *testing.T) {
	bubble(t, func(f *fixture) {
		n := f.create("n1")
		_, err := f.svc.BootRecord(f.ctx, &api.BootRecordRequest{Node: "n1"})
		wants(f.T, "no boot services", err, errs.Unsupported, "no boot services")

		svc := service.New(service.Config{
			Cluster: f.p, Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
			DescribeBoot: func(id string) (*api.BootRecordReply, error) {
				return &api.BootRecordReply{NodeId: id, Peer: "p1"}, nil
			},
		})
		for _, peer := range []string{"", "p1"} {
			rep, err := svc.BootRecord(f.ctx, &api.BootRecordRequest{Node: "n1", Peer: peer})
			if err != nil || rep.GetNodeId() != n.GetId() || rep.GetPeer() != "p1" {
				f.Errorf("peer %q: %v, %v", peer, rep, err)
			}
		}
		_, err = svc.BootRecord(f.ctx, &api.BootRecordRequest{Node: "nobody"})
		wants(f.T, "nobody", err, errs.NotFound, "nobody")
		_, err = svc.BootRecord(f.ctx, &api.BootRecordRequest{Node: "n1", Peer: "p9"})
		wants(f.T, "p9", err, errs.NotFound, "no peer p9")
		var asked string
		f.p.Conn = func(id string) (*grpc.ClientConn, error) {
			asked = id
			return nil, errs.New(errs.Timeout, "nobody there")
		}
		_, err = svc.BootRecord(f.ctx, &api.BootRecordRequest{Node: "n1", Peer: "p2"})
		wants(f.T, "p2", err, errs.Timeout, "nobody there")
		if asked != "p2" {
			f.Errorf("%q was asked", asked)
		}
		_, err = svc.LocalBootRecord(f.ctx, &api.BootRecordRequest{Node: n.GetId()})
		wants(f.T, "a client", err, errs.Denied, "peers")
		if rep, err := svc.LocalBootRecord(f.c.As(f.Context(), f, pki.Identity{Role: pki.RolePeer, Name: "p2"}), &api.BootRecordRequest{Node: n.GetId()}); err != nil || rep.GetNodeId() != n.GetId() {
			f.Errorf("a peer: %v, %v", rep, err)
		}
	})
}

// Kernel arguments are checked where they are set: a machine that does not boot
// would be the first to notice.
func TestKernelArguments(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		if err := f.update("n1", map[string]string{"properties/kernel_args": `"nomodeset"`, "properties/console": `"ttyS1,115200n8"`}); err != nil {
			f.Fatal(err)
		}
		for value, says := range map[string]string{
			`"a=${net0/mac}"`:     "letters, digits",
			`"rdinit=/bin/sh"`:    "decides",
			`"ironring.nonce=00"`: "own",
			`7`:                   "must be a string",
		} {
			wants(f.T, value, f.update("n1", map[string]string{"properties/kernel_args": value}), errs.Invalid, says)
		}
	})
}
