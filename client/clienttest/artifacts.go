package clienttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// PutArtifact implements api.IronringServer. It keeps the record, not the file.
func (p *Peer) PutArtifact(stream grpc.ClientStreamingServer[api.PutArtifactRequest, api.ArtifactReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	head := first.GetHead()
	sum, size := sha256.New(), uint64(0)
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		sum.Write(msg.GetData())
		size += uint64(len(msg.GetData()))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != head.GetDigest() || size != head.GetSize() {
		return errs.About(errs.Invalid, "digest", "%d bytes of digest %s came, %d of %s were announced", size, got, head.GetSize(), head.GetDigest())
	}
	c := p.c
	rep, err := once(c, "", "put artifact "+head.GetName(), func() (*api.ArtifactReply, error) {
		a := &api.Artifact{Digest: head.GetDigest(), Size: size, Kind: head.GetKind(), Name: head.GetName(), Arch: head.GetArch(), Purpose: head.GetPurpose(), Copies: []string{"p1", "p2"}, CreatedMs: c.Now(), Rev: 1, Index: c.index}
		c.artifacts = append(slices.DeleteFunc(c.artifacts, func(o *api.Artifact) bool { return o.Digest == a.Digest }), a)
		return &api.ArtifactReply{Artifact: a, Index: c.index}, nil
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(rep)
}

func (c *Cluster) artifactLocked(ref string) (*api.Artifact, error) {
	for _, a := range c.artifacts {
		if a.Name == ref || len(ref) >= 8 && strings.HasPrefix(a.Digest, ref) {
			return a, nil
		}
	}
	return nil, errs.About(errs.NotFound, ref, "no artifact %q", ref)
}

// GetArtifact implements api.IronringServer.
func (p *Peer) GetArtifact(_ context.Context, req *api.GetArtifactRequest) (*api.ArtifactReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	a, err := p.c.artifactLocked(req.GetArtifact())
	if err != nil {
		return nil, err
	}
	rep := &api.ArtifactReply{Artifact: proto.CloneOf(a), Index: p.c.index}
	for _, r := range p.c.ramdisks {
		if r.Kernel == a.Digest || r.Initramfs == a.Digest {
			rep.ReferencedBy = append(rep.ReferencedBy, "ramdisk "+r.Arch)
		}
	}
	return rep, nil
}

// ListArtifacts implements api.IronringServer.
func (p *Peer) ListArtifacts(context.Context, *api.ListArtifactsRequest) (*api.ListArtifactsReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	rep := &api.ListArtifactsReply{Index: p.c.index}
	for _, a := range p.c.artifacts {
		rep.Artifacts = append(rep.Artifacts, proto.CloneOf(a))
	}
	return rep, nil
}

// DeleteArtifact implements api.IronringServer.
func (p *Peer) DeleteArtifact(_ context.Context, req *api.DeleteArtifactRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "delete artifact "+req.GetArtifact(), func() (*api.WriteReply, error) {
		a, err := c.artifactLocked(req.GetArtifact())
		if err != nil {
			return nil, err
		}
		for _, r := range c.ramdisks {
			if r.Kernel == a.Digest || r.Initramfs == a.Digest {
				return nil, errs.About(errs.WrongState, a.Digest, "artifact %s is used by ramdisk %s", a.Name, r.Arch)
			}
		}
		c.artifacts = slices.DeleteFunc(c.artifacts, func(o *api.Artifact) bool { return o == a })
		return &api.WriteReply{Index: c.index}, nil
	})
}

// SetRamdisk implements api.IronringServer.
func (p *Peer) SetRamdisk(_ context.Context, req *api.SetRamdiskRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "set ramdisk "+req.GetRamdisk().GetArch(), func() (*api.WriteReply, error) {
		r := proto.CloneOf(req.GetRamdisk())
		for _, ref := range []*string{&r.Kernel, &r.Initramfs} {
			a, err := c.artifactLocked(*ref)
			if err != nil {
				return nil, err
			}
			*ref = a.Digest
		}
		r.SetMs = c.Now()
		c.ramdisks = append(slices.DeleteFunc(c.ramdisks, sameRamdisk(r.Arch, r.Purpose)), r)
		return &api.WriteReply{Index: c.index}, nil
	})
}

func sameRamdisk(arch, purpose string) func(*api.Ramdisk) bool {
	return func(r *api.Ramdisk) bool { return r.Arch == arch && r.Purpose == purpose }
}

// ListRamdisks implements api.IronringServer.
func (p *Peer) ListRamdisks(context.Context, *api.ListRamdisksRequest) (*api.ListRamdisksReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	rep := &api.ListRamdisksReply{Index: p.c.index}
	for _, r := range p.c.ramdisks {
		rep.Ramdisks = append(rep.Ramdisks, proto.CloneOf(r))
	}
	return rep, nil
}

// DeleteRamdisk implements api.IronringServer.
func (p *Peer) DeleteRamdisk(_ context.Context, req *api.DeleteRamdiskRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "delete ramdisk "+req.GetArch(), func() (*api.WriteReply, error) {
		before := len(c.ramdisks)
		c.ramdisks = slices.DeleteFunc(c.ramdisks, sameRamdisk(req.GetArch(), req.GetPurpose()))
		if len(c.ramdisks) == before {
			return nil, errs.About(errs.NotFound, req.GetArch(), "no ramdisk for %s, purpose %s", req.GetArch(), req.GetPurpose())
		}
		return &api.WriteReply{Index: c.index}, nil
	})
}
