package cluster

import (
	"context"
	"crypto/rand"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// membership is what a member has of its cluster.
type membership struct {
	identity *identity
	ca       *pki.CA
	holder   *pki.Holder
	secrets
	notice string // about the certificate at the start; "" when all is well
}

// found makes a new cluster in an unused data directory. identity.json comes
// last, so that a crash before it leaves an unused directory.
func (d *dataDir) found(cfg Config, cluster string) error {
	now := cfg.Clock.Now()
	ca, err := pki.Create(cluster, now)
	if err != nil {
		return err
	}
	csr, key, err := pki.NewRequest()
	if err != nil {
		return err
	}
	cert, err := ca.Issue(csr, pki.Identity{Role: pki.RolePeer, Name: cfg.ID}, 0, now)
	if err != nil {
		return err
	}
	ring, err := seal.New()
	if err != nil {
		return err
	}
	ringFile, err := ring.Marshal()
	if err != nil {
		return errs.New(errs.Internal, "encode keyring: %w", err)
	}
	self, err := seal.NewRecipient()
	if err != nil {
		return err
	}
	sealKey, err := self.Marshal()
	if err != nil {
		return errs.New(errs.Internal, "encode seal key: %w", err)
	}
	gossip := make([]byte, gossipKeyLen)
	rand.Read(gossip) // never fails since Go 1.24
	settings, err := protojson.Marshal(cfg.Settings)
	if err != nil {
		return errs.New(errs.Invalid, "encode settings: %w", err)
	}
	if err := d.writeAll(map[string][]byte{
		caCertFile: ca.CertDER(), caKeyFile: ca.KeyDER(), certFile: cert, keyFile: key,
		keyringFile: ringFile, gossipFile: gossip, sealKeyFile: sealKey,
	}); err != nil {
		return err
	}
	return d.writeIdentity(&identity{ID: cfg.ID, ClusterID: cluster, Founder: true, Settings: settings})
}

func (d *dataDir) writeAll(files map[string][]byte) error {
	for name, data := range files {
		if err := d.write(name, data); err != nil {
			return err
		}
	}
	return nil
}

// load reads everything that a member has, and says which file is damaged.
func (d *dataDir) load(now time.Time) (*membership, error) {
	id, err := d.readIdentity()
	if err != nil {
		return nil, err
	}
	if id.RemovedMs > 0 {
		return nil, errs.About(errs.WrongState, d.path, "%w", &RemovedError{Cluster: id.ClusterID, Member: id.ID, At: time.UnixMilli(id.RemovedMs)})
	}
	if id.Left {
		return nil, errs.About(errs.WrongState, d.path, "member %s has left the cluster: empty %s to join again with a new token", id.ID, d.path)
	}
	c := &membership{identity: id}
	files := map[string][]byte{}
	for _, name := range []string{caCertFile, caKeyFile, certFile, keyFile, keyringFile, gossipFile, sealKeyFile} {
		if files[name], err = d.read(name); err != nil {
			return nil, err
		}
	}
	if c.ca, err = pki.Load(files[caCertFile], files[caKeyFile]); err != nil {
		return nil, d.damaged(caCertFile+" or "+caKeyFile, "is damaged ("+err.Error()+")")
	}
	if c.ca.Cluster() != id.ClusterID {
		return nil, d.damaged(caCertFile, "belongs to cluster "+c.ca.Cluster()+", not to "+id.ClusterID)
	}
	if err := checkClock(c.ca, now); err != nil {
		return nil, err
	}
	if c.holder, err = pki.NewHolder(files[caCertFile], files[certFile], files[keyFile]); err != nil {
		return nil, d.damaged(certFile+" or "+keyFile, "is damaged ("+err.Error()+")")
	}
	who, err := pki.ParseIdentity(c.holder.Leaf())
	if err != nil || who.Role != pki.RolePeer || who.Name != id.ID {
		return nil, d.damaged(certFile, "is not the certificate of member "+id.ID)
	}
	if c.keyring, err = seal.Parse(files[keyringFile]); err != nil {
		return nil, d.damaged(keyringFile, "is damaged")
	}
	if c.self, err = seal.ParseRecipient(files[sealKeyFile]); err != nil {
		return nil, d.damaged(sealKeyFile, "is damaged")
	}
	if c.gossip = files[gossipFile]; len(c.gossip) != gossipKeyLen {
		return nil, d.damaged(gossipFile, "is damaged")
	}
	c.notice = certificateNotice(c.holder, now)
	return c, d.renew(c, now)
}

// renew replaces a certificate that is past half of its life, or that begins
// in the future because a clock was wrong. Every member has the CA's key, so
// that this needs nobody else.
func (d *dataDir) renew(c *membership, now time.Time) error {
	if !c.holder.NeedsRenewal(now) && !now.Before(c.holder.Leaf().NotBefore) {
		return nil
	}
	keyDER, err := d.read(keyFile)
	if err != nil {
		return err
	}
	csr, err := pki.RequestFor(keyDER)
	if err != nil {
		return err
	}
	cert, err := c.ca.Issue(csr, pki.Identity{Role: pki.RolePeer, Name: c.identity.ID}, 0, now)
	if err != nil {
		return err
	}
	if err := d.write(certFile, cert); err != nil {
		return err
	}
	return c.holder.Replace(cert, keyDER)
}

// keepCertificate renews this peer's certificate while it runs.
func (c *Cluster) keepCertificate(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.dir.renew(c.creds, c.clock.Now()); err != nil {
			c.log.Error("could not renew this peer's certificate", "until", c.creds.holder.Leaf().NotAfter, "err", err)
		}
	}
}
