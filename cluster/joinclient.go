package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/internal/seal"
)

// joinTimeout bounds the call to one member: it may have to wait for a leader.
const joinTimeout = 15 * time.Second

// join asks the members named in the token to take this peer in and stores
// what they give. The key is stored first, so that a repeated join is known to
// be the same one.
func (d *dataDir) join(ctx context.Context, cfg Config, t joinToken) error {
	key, err := d.joinKey()
	if err != nil {
		return err
	}
	csr, err := pki.RequestFor(key)
	if err != nil {
		return err
	}
	self, err := d.joinSealKey()
	if err != nil {
		return err
	}
	m := proto.CloneOf(cfg.Advertised)
	m.SealKey = self.Public()
	req := &api.JoinRequest{TokenId: t.ID, Secret: t.Secret, CsrDer: csr, Member: m, ClusterId: t.ClusterID}
	reply, err := askMembers(ctx, cfg, t, req)
	if err != nil {
		return err
	}
	if err := checkWelcome(reply, t, key, cfg.ID); err != nil {
		return err
	}
	if err := d.writeAll(map[string][]byte{
		caCertFile: reply.GetCaCertDer(), caKeyFile: reply.GetCaKeyDer(), certFile: reply.GetCertDer(),
		keyringFile: reply.GetDataKeyring(), gossipFile: reply.GetGossipKeyring(),
	}); err != nil {
		return err
	}
	id := &identity{ID: cfg.ID, ClusterID: reply.GetClusterId()}
	for _, m := range reply.GetMembers() {
		if m.GetId() != cfg.ID && !gone(m) {
			id.Seeds = append(id.Seeds, seed{m.GetId(), m.GetClusterAddress(), m.GetGossipAddress()})
		}
	}
	return d.writeIdentity(id)
}

func (d *dataDir) joinKey() ([]byte, error) {
	if d.has(keyFile) {
		return d.read(keyFile)
	}
	_, key, err := pki.NewRequest()
	if err != nil {
		return nil, err
	}
	return key, d.write(keyFile, key)
}

// joinSealKey is, like the key, the same for a repeated join.
func (d *dataDir) joinSealKey() (*seal.Recipient, error) {
	if d.has(sealKeyFile) {
		raw, err := d.read(sealKeyFile)
		if err != nil {
			return nil, err
		}
		return seal.ParseRecipient(raw)
	}
	self, err := seal.NewRecipient()
	if err != nil {
		return nil, err
	}
	raw, err := self.Marshal()
	if err != nil {
		return nil, errs.New(errs.Internal, "encode seal key: %w", err)
	}
	return self, d.write(sealKeyFile, raw)
}

// askMembers asks one member after the other. What one of them refuses, all
// would; only who cannot be reached or has no leader is passed over.
func askMembers(ctx context.Context, cfg Config, t joinToken, req *api.JoinRequest) (*api.JoinReply, error) {
	var failures []error
	for _, address := range t.Addresses {
		reply, err := askMember(ctx, cfg, address, t, req)
		if err == nil {
			return reply, nil
		}
		err = errs.New(errs.KindOf(err), "join through %s: %w", address, err)
		switch errs.KindOf(err) {
		case errs.Unreachable, errs.Timeout, errs.NoQuorum, errs.NotLeader, errs.Busy:
			failures = append(failures, err)
		default:
			return nil, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errs.New(errs.KindOf(failures[len(failures)-1]), "%w", errors.Join(failures...))
}

func askMember(ctx context.Context, cfg Config, address string, t joinToken, req *api.JoinRequest) (*api.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var mu sync.Mutex
	var refused error // guarded by mu; why we do not trust the server
	conf := pki.DigestTLS(t.CADigest, cfg.Clock.Now, nil)
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		mu.Lock()
		defer mu.Unlock()
		refused = err
		return err
	}
	cc, err := grpc.NewClient("passthrough:///"+address, append(rpc.DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return cfg.Dial(ctx, "tcp", a) }),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)))...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "address %q: %w", address, err)
	}
	defer cc.Close()
	reply, err := api.NewJoinClient(cc).Join(ctx, req)
	mu.Lock()
	defer mu.Unlock()
	if refused != nil {
		return nil, errs.New(errs.Denied, "%w", refused)
	}
	return reply, err
}

// checkWelcome makes sure that the answer is whole before anything is stored.
func checkWelcome(r *api.JoinReply, t joinToken, keyDER []byte, id string) error {
	if r.GetClusterId() != t.ClusterID || pki.Digest(r.GetCaCertDer()) != t.CADigest {
		return errs.New(errs.Denied, "the answer is from another cluster")
	}
	if _, err := pki.Load(r.GetCaCertDer(), r.GetCaKeyDer()); err != nil {
		return err
	}
	if _, err := pki.NewHolder(r.GetCaCertDer(), r.GetCertDer(), keyDER); err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(r.GetCertDer())
	if err != nil {
		return errs.New(errs.Invalid, "read certificate: %w", err)
	}
	if who, err := pki.ParseIdentity(leaf); err != nil || who.Name != id || bytes.Equal(r.GetGossipKeyring(), nil) {
		return errs.New(errs.Invalid, "the answer is not complete")
	}
	return nil
}
