package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// gossipOverlap is how long the old gossip key is understood after a new one
// came, for members that get it a moment later.
const gossipOverlap = 10 * time.Second

// secrets are the keys that all members share: the data keyring and the gossip
// key, of one generation. New ones come sealed to each member in the
// replicated Keys record (ADR 0013).
type secrets struct {
	self    *seal.Recipient
	keyring *seal.Keyring // one for the life of the process; its keys are replaced

	mu     sync.Mutex
	gossip []byte // guarded by mu; of keyring's generation
}

func (s *secrets) gossipKey() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gossip
}

// present are the data keyring and the gossip key, of one generation.
func (s *secrets) present() (ring, gossip []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ring, err = s.keyring.Marshal(); err != nil {
		return nil, nil, errs.New(errs.Internal, "encode keyring: %v", err)
	}
	return ring, s.gossip, nil
}

// bundle is what is sealed to a member.
type bundle struct {
	Keyring json.RawMessage `json:"keyring"`
	Gossip  []byte          `json:"gossip"`
}

func boxInfo(cluster, member string, generation uint64) string {
	return fmt.Sprintf("ironring keys %d of cluster %s for member %s", generation, cluster, member)
}

// installKeys brings this peer's keys to what the record says. It may be
// called with any record at any time and does nothing with an old one. The
// keyring file goes last: a crash before it repeats the whole.
func (c *Cluster) installKeys(k *api.Keys) error {
	s := &c.creds.secrets
	s.mu.Lock()
	defer s.mu.Unlock()
	switch have := s.keyring.Generation(); {
	case k.GetGeneration() < have:
		return nil
	case k.GetGeneration() == have:
		return c.forgetKeysLocked(k)
	}
	i := slices.IndexFunc(k.GetSealed(), func(b *api.SealedKeys) bool {
		return b.GetMember() == c.ID() && bytes.Equal(b.GetSealKey(), s.self.Public())
	})
	if i < 0 {
		return errs.New(errs.Denied, "the cluster's keys of generation %d are not for this peer", k.GetGeneration())
	}
	raw, err := s.self.Open(boxInfo(c.ClusterID(), c.ID(), k.GetGeneration()), k.GetSealed()[i].GetBox())
	if err != nil {
		return err
	}
	var b bundle
	if err := json.Unmarshal(raw, &b); err != nil || len(b.Gossip) != gossipKeyLen {
		return errs.New(errs.Invalid, "the cluster's keys of generation %d cannot be read", k.GetGeneration())
	}
	next, err := seal.Parse(b.Keyring)
	if err != nil {
		return err
	}
	if next.Generation() != k.GetGeneration() || next.Primary() != k.GetDataPrimary() {
		return errs.New(errs.Invalid, "the cluster's keys of generation %d are not what their record says", k.GetGeneration())
	}
	if next, err = next.Retain(k.GetDataKeys()); err != nil {
		return err
	}
	if err := c.dir.write(gossipFile, b.Gossip); err != nil {
		return err
	}
	if err := c.dir.writeKeyring(next); err != nil {
		return err
	}
	s.keyring.Replace(next)
	s.gossip = b.Gossip
	c.gossip.rekey(b.Gossip)
	c.log.Info("this peer has new cluster keys", "generation", next.Generation(), "data_key", next.Primary())
	return nil
}

// forgetKeysLocked drops data keys that were retired.
func (c *Cluster) forgetKeysLocked(k *api.Keys) error {
	ring := c.creds.keyring
	if !slices.ContainsFunc(ring.IDs(), func(id string) bool { return !slices.Contains(k.GetDataKeys(), id) }) {
		return nil
	}
	next, err := ring.Retain(k.GetDataKeys())
	if err != nil {
		return err
	}
	if err := c.dir.writeKeyring(next); err != nil {
		return err
	}
	ring.Replace(next)
	c.log.Info("data keys that nothing is sealed with any more are forgotten", "left", ring.IDs())
	return nil
}

func (d *dataDir) writeKeyring(k *seal.Keyring) error {
	raw, err := k.Marshal()
	if err != nil {
		return errs.New(errs.Internal, "encode keyring: %v", err)
	}
	return d.write(keyringFile, raw)
}

// keepKeys follows the Keys record until the context ends. A value that is
// newer than the keys asks by itself (seal.Keyring.OnMissing).
func (c *Cluster) keepKeys(ctx context.Context) {
	follow := func() {
		k := c.store.View().Keys()
		if k == nil {
			return
		}
		if err := c.installKeys(k); err != nil {
			c.log.Warn("this peer could not take the cluster's new keys, will try again", "generation", k.GetGeneration(), "err", err)
		}
	}
	c.creds.keyring.OnMissing(follow)
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	for after := uint64(0); ; {
		changes, upTo, more, err := c.store.Changes(after)
		if err != nil || after == 0 || slices.ContainsFunc(changes, func(ch fsm.Change) bool { return ch.Table == fsm.TableKeys }) {
			follow()
		}
		after = upTo
		select {
		case <-more:
		case <-again.C:
			follow()
			c.gossip.forgetOldKeys()
		case <-ctx.Done():
			return
		}
	}
}

// keyMaker makes new keys for the leader's duties.
type keyMaker struct{ c *Cluster }

var _ duties.KeyMaker = keyMaker{}

// Rotate implements duties.KeyMaker.
func (m keyMaker) Rotate(v *fsm.View) (*api.KeysRotate, error) {
	c, is := m.c, v.Keys()
	if err := c.installKeys(is); err != nil {
		return nil, err
	}
	ring := c.creds.keyring
	if is.GetGeneration() == 0 {
		return nil, errs.New(errs.Unsupported, "this cluster was founded by a version that did not say which keys it has")
	}
	if ring.Generation() != is.GetGeneration() {
		return nil, errs.New(errs.Conflict, "this peer has keys of generation %d, the cluster of %d", ring.Generation(), is.GetGeneration())
	}
	next, err := ring.Successor(is.GetDataKeys())
	if err != nil {
		return nil, err
	}
	raw, err := next.Marshal()
	if err != nil {
		return nil, errs.New(errs.Internal, "encode keyring: %v", err)
	}
	gossip := make([]byte, gossipKeyLen)
	rand.Read(gossip) // never fails since Go 1.24
	plain, err := json.Marshal(bundle{Keyring: raw, Gossip: gossip})
	if err != nil {
		return nil, errs.New(errs.Internal, "encode keys")
	}
	op := &api.KeysRotate{Generation: next.Generation(), DataPrimary: next.Primary()}
	for _, to := range v.Members() {
		if gone(to) {
			continue
		}
		if len(to.GetSealKey()) == 0 {
			return nil, errs.About(errs.WrongState, to.GetId(), "member %s has not said what new keys are to be sealed to: has it started since it was upgraded?", to.GetId())
		}
		box, err := seal.To(to.GetSealKey(), boxInfo(c.ClusterID(), to.GetId(), next.Generation()), plain)
		if err != nil {
			return nil, err
		}
		op.Sealed = append(op.Sealed, &api.SealedKeys{Member: to.GetId(), SealKey: to.GetSealKey(), Box: box})
	}
	return op, nil
}

// Reseal implements duties.KeyMaker.
func (m keyMaker) Reseal(doc []byte, places ...string) ([]byte, error) {
	return m.c.creds.keyring.Reseal(doc, places...)
}

// Ready implements duties.KeyMaker.
func (m keyMaker) Ready(k *api.Keys) bool {
	ring := m.c.creds.keyring
	return m.c.installKeys(k) == nil && ring.Primary() == k.GetDataPrimary()
}
