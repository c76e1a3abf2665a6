package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// Life of a join token.
const (
	defaultTokenLife = time.Hour
	maxTokenLife     = 7 * 24 * time.Hour
)

// CreateJoinToken makes a token with which one peer may join; it is shown once
// and only its digest is stored. It expires by the wall clock of the peer that
// is asked to take the joiner. ttl 0 is one hour.
func (c *Cluster) CreateJoinToken(ctx context.Context, ttl time.Duration) (token string, expires time.Time, err error) {
	if ttl == 0 {
		ttl = defaultTokenLife
	}
	if ttl < time.Second || ttl > maxTokenLife {
		return "", time.Time{}, errs.About(errs.Invalid, "ttl", "a join token lives 1 second to 7 days, not %v", ttl)
	}
	return c.createJoinToken(ctx, ttl, "")
}

// createJoinToken is CreateJoinToken for who proved the shared key of an id.
func (c *Cluster) createJoinToken(ctx context.Context, ttl time.Duration, formKey string) (token string, expires time.Time, err error) {
	t := joinToken{ID: randomHex(8), Secret: make([]byte, 32), CADigest: c.creds.ca.Digest(), ClusterID: c.ClusterID()}
	rand.Read(t.Secret) // never fails since Go 1.24
	if err := c.waitAnnounced(ctx); err != nil {
		return "", time.Time{}, err
	}
	// Its own first: known to work, the caller reached it. Its record may not be
	// there yet when the cluster is new.
	if a := c.cfg.Advertised.GetApiAddress(); a != "" {
		t.Addresses = append(t.Addresses, a)
	}
	for _, m := range others(c.store.View().Members(), c.ID()) {
		if m.GetApiAddress() != "" {
			t.Addresses = append(t.Addresses, m.GetApiAddress())
		}
	}
	if len(t.Addresses) == 0 {
		return "", time.Time{}, errs.New(errs.WrongState, "no member has an api address that a joiner could call")
	}
	now := c.clock.Now()
	expires = now.Add(ttl)
	_, err = c.Propose(ctx, &api.Command{
		Meta: c.system("make a join token"),
		Ops: []*api.Op{{Op: &api.Op_TokenCreate{TokenCreate: &api.TokenCreate{Token: &api.JoinToken{
			Id: t.ID, SecretDigest: secretDigest(t.Secret), ExpiresMs: expires.UnixMilli(), CreatedMs: now.UnixMilli(), FormKey: formKey,
		}}}}},
	})
	if err != nil {
		return "", time.Time{}, err
	}
	token, err = t.encode()
	return token, expires, err
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// waitAnnounced waits, for as long as for a leader, until this peer's own record
// is there: a founder comes before those whom it takes in.
func (c *Cluster) waitAnnounced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !isMember(c.store.View().Member(c.ID())) {
		select {
		case <-ctx.Done():
			return errs.New(errs.NoQuorum, "this peer is not a member yet: is there a leader?")
		case <-c.stopped:
			return errs.New(errs.NoQuorum, "this peer is stopping")
		case <-tick.C:
		}
	}
	return nil
}

// JoinServer answers joining peers; it belongs on the api listener, where a
// caller needs no certificate.
func (c *Cluster) JoinServer() api.JoinServer { return joinService{c: c} }

type joinService struct {
	api.UnimplementedJoinServer
	c *Cluster
}

// Join implements api.JoinServer. It is safe to repeat with the same key: a
// joiner that lost the answer gets another.
func (s joinService) Join(ctx context.Context, req *api.JoinRequest) (*api.JoinReply, error) {
	c := s.c
	if req.GetClusterId() != c.ClusterID() {
		return nil, errs.New(errs.Denied, "the join token is for cluster %s, this is cluster %s", req.GetClusterId(), c.ClusterID())
	}
	csr, err := pki.ParseRequest(req.GetCsrDer())
	if err != nil {
		return nil, err
	}
	key := pki.KeyDigest(csr.RawSubjectPublicKeyInfo)
	m := req.GetMember()
	if err := checkJoiner(m); err != nil {
		return nil, err
	}
	// The token may have been made at another peer a moment ago.
	if _, err := c.ReadIndex(ctx); err != nil {
		return nil, err
	}
	v := c.store.View()
	if err := checkToken(v, req, key, c.clock.Now()); err != nil {
		return nil, err
	}
	if old := v.Member(m.GetId()); isMember(old) && v.JoinToken(req.GetTokenId()).GetMemberId() != m.GetId() && !bytes.Equal(old.GetKeyDigest(), key) {
		return nil, errs.About(errs.Exists, m.GetId(), "there is a member %q already: choose another id, or remove the old member first", m.GetId())
	}
	if v.Former(m.GetId(), key) != nil {
		return nil, errs.About(errs.Exists, m.GetId(), "this data directory was that of the former member %s: empty it and join again", m.GetId())
	}
	m.KeyDigest = key
	if err := c.consumeToken(ctx, req, key); err != nil {
		return nil, err
	}
	c.log.Info("peer joins", "peer", m.GetId(), "address", m.GetClusterAddress())
	return c.welcome(req, key)
}

// maxMember bounds the record of a member, in bytes; those of peers have a few
// hundred. Apply bounds it again.
const maxMember = 16 << 10

func checkJoiner(m *api.Member) error {
	if n := proto.Size(m); n > maxMember {
		return errs.About(errs.Invalid, "member", "the record of the joining peer has %d bytes, at most %d", n, maxMember)
	}
	if !validID.MatchString(m.GetId()) {
		return errs.About(errs.Invalid, "id", "member id %q is not valid", m.GetId())
	}
	for name, a := range map[string]string{"cluster": m.GetClusterAddress(), "gossip": m.GetGossipAddress()} {
		if _, port, err := splitAddress(a); err != nil || port == 0 {
			return errs.About(errs.Invalid, name, "the %s address %q of %s is not valid", name, a, m.GetId())
		}
	}
	if _, err := seal.To(m.GetSealKey(), "check", nil); err != nil {
		return errs.About(errs.Invalid, "seal_key", "the seal key of %s is not valid", m.GetId())
	}
	return nil
}

// checkToken says clearly why a token is refused; Apply decides again.
func checkToken(v *fsm.View, req *api.JoinRequest, key []byte, now time.Time) error {
	t := v.JoinToken(req.GetTokenId())
	switch {
	case t == nil:
		return errs.New(errs.Denied, "the join token is not known to this cluster: it expired long ago, or was never made")
	case subtle.ConstantTimeCompare(t.GetSecretDigest(), secretDigest(req.GetSecret())) != 1:
		return errs.New(errs.Denied, "the secret of the join token is wrong")
	case len(t.GetKeyDigest()) > 0 && subtle.ConstantTimeCompare(t.GetKeyDigest(), key) != 1:
		return errs.New(errs.Denied, "the join token was used already, by %s: make a new one", t.GetMemberId())
	case t.GetMemberId() != "" && t.GetMemberId() != req.GetMember().GetId():
		return errs.New(errs.Denied, "the join token was used already for member id %s", t.GetMemberId())
	case now.UnixMilli() > t.GetExpiresMs():
		return errs.New(errs.Denied, "the join token expired at %s: make a new one", time.UnixMilli(t.GetExpiresMs()).UTC().Format(time.RFC3339))
	}
	return nil
}

// consumeToken records the use of the token and the new member in one command.
// The leader's duties then add the member to the Raft configuration.
func (c *Cluster) consumeToken(ctx context.Context, req *api.JoinRequest, key []byte) error {
	m := proto.CloneOf(req.GetMember())
	m.Phase, m.JoinedMs = api.Member_JOINING, c.clock.Now().UnixMilli()
	if old := c.store.View().Member(m.GetId()); old != nil && !gone(old) {
		m.Phase, m.JoinedMs = old.GetPhase(), old.GetJoinedMs() // a repeated join
	}
	_, err := c.Propose(ctx, &api.Command{
		Meta: c.system("peer joins"),
		Ops: []*api.Op{
			{Op: &api.Op_TokenConsume{TokenConsume: &api.TokenConsume{
				Id: req.GetTokenId(), SecretDigest: secretDigest(req.GetSecret()), KeyDigest: key, MemberId: m.GetId(),
			}}},
			{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: m}}},
		},
	})
	if errors.Is(err, errs.Conflict) {
		return errs.New(errs.Denied, "the join token was used already: %w", err)
	}
	return err
}

// welcome is what a new member gets. The keys come first, and then the look
// whether it is a member: who was removed since its token was taken (this peer
// may have slept) gets no keys that were made because of that.
func (c *Cluster) welcome(req *api.JoinRequest, key []byte) (*api.JoinReply, error) {
	id := req.GetMember().GetId()
	if err := c.installKeys(c.store.View().Keys()); err != nil {
		return nil, err
	}
	ring, gossip, err := c.creds.present()
	if err != nil {
		return nil, err
	}
	v := c.store.View()
	if m := v.Member(id); !isMember(m) || !bytes.Equal(m.GetKeyDigest(), key) {
		return nil, errs.About(errs.Denied, id, "peer %s is no member any more: it was removed while it joined", id)
	}
	cert, err := c.creds.ca.Issue(req.GetCsrDer(), pki.Identity{Role: pki.RolePeer, Name: id}, 0, c.clock.Now())
	if err != nil {
		return nil, err
	}
	return &api.JoinReply{
		ClusterId: c.ClusterID(), CertDer: cert,
		CaCertDer: c.creds.ca.CertDER(), CaKeyDer: c.creds.ca.KeyDER(),
		DataKeyring: ring, GossipKeyring: gossip,
		Members: v.Members(), Settings: v.Settings(),
	}, nil
}

// gone reports whether a member record is only a memory.
func gone(m *api.Member) bool { return m.GetPhase() == api.Member_LEFT }

// system is the Meta of what a peer does by itself.
func (c *Cluster) system(reason string) *api.Meta {
	return &api.Meta{Principal: "peer:" + c.ID(), Reason: reason, WallMs: c.clock.Now().UnixMilli()}
}
