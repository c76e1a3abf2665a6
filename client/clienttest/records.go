package clienttest

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/version"
)

func (c *Cluster) addPortLocked(node string, in *api.Port) (*api.Port, error) {
	port := proto.CloneOf(in)
	port.Address = strings.ToLower(port.Address)
	if !validMAC.MatchString(port.Address) {
		return nil, errs.About(errs.Invalid, "address", "%q is not a MAC address", in.GetAddress())
	}
	for _, o := range c.ports {
		if o.Address == port.Address {
			return nil, errs.About(errs.Exists, port.Address, "port %s is there already", port.Address)
		}
	}
	if port.Id == "" {
		port.Id = fmt.Sprintf("00000000-0000-7000-9000-%012d", len(c.ports)+1)
	}
	port.NodeId, port.Rev, port.Index, port.CreatedMs = node, 1, c.index, c.Now()
	c.ports = append(c.ports, port)
	return port, nil
}

// CreatePort implements api.IronringServer.
func (p *Peer) CreatePort(_ context.Context, req *api.CreatePortRequest) (*api.PortReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "create port", func() (*api.PortReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		port, err := c.addPortLocked(n.Id, req.GetPort())
		if err != nil {
			return nil, err
		}
		return &api.PortReply{Port: port, Index: c.index}, nil
	})
}

// ListPorts implements api.IronringServer.
func (p *Peer) ListPorts(_ context.Context, req *api.ListPortsRequest) (*api.ListPortsReply, error) {
	if err := p.caughtUp(req.GetRead()); err != nil {
		return nil, err
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	rep := &api.ListPortsReply{Index: p.c.index}
	id := ""
	if req.GetNode() != "" {
		n, err := p.c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		id = n.Id
	}
	for _, port := range p.c.ports {
		if id == "" || port.NodeId == id {
			rep.Ports = append(rep.Ports, proto.CloneOf(port))
		}
	}
	return rep, nil
}

// DeletePort implements api.IronringServer.
func (p *Peer) DeletePort(_ context.Context, req *api.DeletePortRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "delete port", func() (*api.WriteReply, error) {
		i := slices.IndexFunc(c.ports, func(o *api.Port) bool { return o.Id == req.GetPort() || o.Address == req.GetPort() })
		if i < 0 {
			return nil, errs.About(errs.NotFound, req.GetPort(), "no port %q", req.GetPort())
		}
		c.ports = slices.Delete(c.ports, i, i+1)
		return &api.WriteReply{Index: c.index}, nil
	})
}

// SetNetwork implements api.IronringServer.
func (p *Peer) SetNetwork(_ context.Context, req *api.SetNetworkRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "set network "+req.GetNetwork().GetName(), func() (*api.WriteReply, error) {
		if _, err := netip.ParsePrefix(req.GetNetwork().GetCidr()); err != nil {
			return nil, errs.About(errs.Invalid, "cidr", "network %s: %v", req.GetNetwork().GetName(), err)
		}
		c.networks = slices.DeleteFunc(c.networks, func(o *api.Network) bool { return o.Name == req.GetNetwork().GetName() })
		c.networks = append(c.networks, proto.CloneOf(req.GetNetwork()))
		return &api.WriteReply{Index: c.index}, nil
	})
}

// ListNetworks implements api.IronringServer.
func (p *Peer) ListNetworks(context.Context, *api.ListNetworksRequest) (*api.ListNetworksReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	rep := &api.ListNetworksReply{Index: p.c.index}
	for _, n := range p.c.networks {
		rep.Networks = append(rep.Networks, proto.CloneOf(n))
	}
	return rep, nil
}

// BootRecord implements api.IronringServer: the ramdisk for each port, from p2
// or the peer that is named.
func (p *Peer) BootRecord(_ context.Context, req *api.BootRecordRequest) (*api.BootRecordReply, error) {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.findLocked(req.GetNode())
	if n == nil {
		return nil, errs.About(errs.NotFound, req.GetNode(), "no node %q", req.GetNode())
	}
	rep := &api.BootRecordReply{NodeId: n.GetId(), Peer: cmp.Or(req.GetPeer(), "p2"), Index: c.index, Dhcp: "full", Files: []*api.BootFile{
		{Name: "vmlinuz", Path: "/ramdisk/vmlinuz", UsedBy: "iPXE, by HTTP", Size: 8, Sha256: strings.Repeat("a", 64)},
		{Name: "snponly.efi", Path: "/ipxe/snponly.efi", UsedBy: "UEFI x86-64 PXE, by TFTP", Problem: "is missing"},
	}}
	for _, port := range c.ports {
		if port.GetNodeId() == n.GetId() {
			rep.Ports = append(rep.Ports, &api.BootPort{
				Mac: port.GetAddress(), Target: api.BootTarget_BOOT_RAMDISK, Nonce: true, Script: "#!ipxe\nset line x\n",
				Addresses: []*api.BootAddress{{Network: "prov", Address: "10.77.0.10"}, {Network: "office", Mode: api.DHCPMode_DHCP_PROXY}},
			})
		}
	}
	return rep, nil
}

// DeleteNetwork implements api.IronringServer.
func (p *Peer) DeleteNetwork(_ context.Context, req *api.DeleteNetworkRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "delete network "+req.GetName(), func() (*api.WriteReply, error) {
		if !slices.ContainsFunc(c.networks, func(o *api.Network) bool { return o.Name == req.GetName() }) {
			return nil, errs.About(errs.NotFound, req.GetName(), "no network %q", req.GetName())
		}
		c.networks = slices.DeleteFunc(c.networks, func(o *api.Network) bool { return o.Name == req.GetName() })
		return &api.WriteReply{Index: c.index}, nil
	})
}

// ClusterStatus implements api.IronringServer.
func (p *Peer) ClusterStatus(context.Context, *api.ClusterStatusRequest) (*api.ClusterStatusReply, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.status != nil {
		return proto.CloneOf(p.c.status), nil
	}
	return &api.ClusterStatusReply{ClusterId: p.c.ID, Leader: p.ID, Index: p.c.index, AnsweredBy: p.ID, Nodes: uint64(len(p.c.nodes))}, nil
}

// CreateJoinToken implements api.IronringServer.
func (p *Peer) CreateJoinToken(_ context.Context, req *api.CreateJoinTokenRequest) (*api.CreateJoinTokenReply, error) {
	ttl := int64(req.GetTtlSeconds())
	if ttl == 0 {
		ttl = 3600
	}
	return once(p.c, "", "create token", func() (*api.CreateJoinTokenReply, error) {
		return &api.CreateJoinTokenReply{Token: "ir1.dGVzdA", ExpiresMs: p.c.Now() + ttl*1000}, nil
	})
}

// Leave implements api.IronringServer; its notes are those of the status.
func (p *Peer) Leave(_ context.Context, req *api.LeaveRequest) (*api.WriteReply, error) {
	return once(p.c, "", "leave "+req.GetMember(), func() (*api.WriteReply, error) {
		return &api.WriteReply{Index: p.c.index, Notes: p.c.status.GetNotes()}, nil
	})
}

// CreateClientCert implements api.IronringServer with a CA of the moment.
func (p *Peer) CreateClientCert(_ context.Context, req *api.CreateClientCertRequest) (*api.CreateClientCertReply, error) {
	csr, err := x509.ParseCertificateRequest(req.GetCsrDer())
	if err != nil {
		return nil, errs.New(errs.Invalid, "csr: %v", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: req.GetName()}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, csr.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &api.CreateClientCertReply{CertDer: der, CaDer: caDER}, nil
}

// Version implements api.IronringServer.
func (p *Peer) Version(context.Context, *api.VersionRequest) (*api.VersionReply, error) {
	return &api.VersionReply{Version: version.String(), Peer: p.ID, ClusterId: p.c.ID, FeatureLevel: version.FeatureLevel}, nil
}
