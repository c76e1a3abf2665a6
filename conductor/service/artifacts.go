package service

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
)

// Artifacts is what the service needs of package pxe/artifact.
type Artifacts interface {
	// Receive stores a file on this peer's disk.
	Receive(digest string, size uint64, next func() ([]byte, error)) error
	// Replicate has a second peer take a copy; all who have it are given, and
	// the tick of the cluster's clock before which that must be recorded.
	Replicate(ctx context.Context, digest string) (copies []string, until uint64, err error)
}

// maxPart bounds the bytes of one message of an upload.
const maxPart = 1 << 20

// PutArtifact implements api.IronringServer.
func (s *Service) PutArtifact(stream grpc.ClientStreamingServer[api.PutArtifactRequest, api.ArtifactReply]) error {
	if s.cfg.Artifacts == nil {
		return errs.New(errs.Unsupported, "this peer keeps no artifacts")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	head := first.GetHead()
	if head == nil {
		return errs.New(errs.Invalid, "an upload begins with what the file is")
	}
	// Before the bytes: nobody waits for an upload that cannot be recorded.
	a := &api.Artifact{Digest: head.GetDigest(), Size: head.GetSize(), Kind: head.GetKind(), Name: head.GetName(), Arch: head.GetArch(), Purpose: head.GetPurpose()}
	if err := fsm.CheckArtifact(a); err != nil {
		return err
	}
	ctx := stream.Context()
	err = s.cfg.Artifacts.Receive(a.GetDigest(), a.GetSize(), func() ([]byte, error) {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil:
			return nil, errs.New(errs.Timeout, "the upload broke off: %w", err)
		case msg.GetHead() != nil:
			return nil, errs.New(errs.Invalid, "one upload carries one file")
		case len(msg.GetData()) > maxPart:
			return nil, errs.New(errs.Invalid, "a part of %d bytes, at most %d", len(msg.GetData()), maxPart)
		}
		return msg.GetData(), nil
	})
	if err != nil {
		return err
	}
	set := &api.ArtifactSet{Artifact: a}
	if a.Copies, set.BeforeTick, err = s.cfg.Artifacts.Replicate(ctx, a.GetDigest()); err != nil {
		return err
	}
	res, err := s.propose(ctx, "", "put artifact", &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: set}})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&api.ArtifactReply{Artifact: s.cfg.Cluster.Store().View().Artifact(a.GetDigest()), Index: res.GetIndex()})
}

// GetArtifact implements api.IronringServer.
func (s *Service) GetArtifact(_ context.Context, req *api.GetArtifactRequest) (*api.ArtifactReply, error) {
	v := s.cfg.Cluster.Store().View()
	a, err := v.ArtifactByRef(req.GetArtifact())
	if err != nil {
		return nil, err
	}
	return &api.ArtifactReply{Artifact: a, ReferencedBy: v.ArtifactUsers()[a.GetDigest()], Index: v.Index()}, nil
}

// ListArtifacts implements api.IronringServer.
func (s *Service) ListArtifacts(ctx context.Context, req *api.ListArtifactsRequest) (*api.ListArtifactsReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	out := &api.ListArtifactsReply{Index: v.Index()}
	for a := range v.Artifacts() {
		out.Artifacts = append(out.Artifacts, a)
	}
	return out, nil
}

// DeleteArtifact implements api.IronringServer.
func (s *Service) DeleteArtifact(ctx context.Context, req *api.DeleteArtifactRequest) (*api.WriteReply, error) {
	v := s.cfg.Cluster.Store().View()
	a, err := v.ArtifactByRef(req.GetArtifact())
	if err != nil {
		return nil, err
	}
	if by := v.ArtifactUsers()[a.GetDigest()]; len(by) > 0 {
		return nil, errs.About(errs.WrongState, a.GetDigest(), "artifact %s is used by %s", a.GetDigest()[:12], strings.Join(by, ", "))
	}
	res, err := s.propose(ctx, req.GetRequestId(), "delete artifact", &api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: a.GetDigest()}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}

// SetRamdisk implements api.IronringServer.
func (s *Service) SetRamdisk(ctx context.Context, req *api.SetRamdiskRequest) (*api.WriteReply, error) {
	v := s.cfg.Cluster.Store().View()
	in := req.GetRamdisk()
	kernel, err := v.ArtifactByRef(in.GetKernel())
	if err != nil {
		return nil, err
	}
	initramfs, err := v.ArtifactByRef(in.GetInitramfs())
	if err != nil {
		return nil, err
	}
	r := &api.Ramdisk{
		Arch: in.GetArch(), Purpose: in.GetPurpose(), Kernel: kernel.GetDigest(), Initramfs: initramfs.GetDigest(),
		Description: in.GetDescription(), Rev: in.GetRev(),
	}
	if r.Purpose == "" {
		r.Purpose = bootpath.DefaultPurpose
	}
	res, err := s.propose(ctx, req.GetRequestId(), "set ramdisk", &api.Op{Op: &api.Op_RamdiskSet{RamdiskSet: &api.RamdiskSet{Ramdisk: r}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}

// ListRamdisks implements api.IronringServer.
func (s *Service) ListRamdisks(context.Context, *api.ListRamdisksRequest) (*api.ListRamdisksReply, error) {
	v := s.cfg.Cluster.Store().View()
	return &api.ListRamdisksReply{Ramdisks: v.Ramdisks(), Index: v.Index()}, nil
}

// DeleteRamdisk implements api.IronringServer.
func (s *Service) DeleteRamdisk(ctx context.Context, req *api.DeleteRamdiskRequest) (*api.WriteReply, error) {
	op := &api.RamdiskDelete{Arch: req.GetArch(), Purpose: req.GetPurpose()}
	if op.Purpose == "" {
		op.Purpose = bootpath.DefaultPurpose
	}
	res, err := s.propose(ctx, req.GetRequestId(), "delete ramdisk", &api.Op{Op: &api.Op_RamdiskDelete{RamdiskDelete: op}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}
