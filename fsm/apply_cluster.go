package fsm

import (
	"bytes"
	"crypto/sha256"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// FeatureLevel is what this build knows: the level to put into api.Member.
const FeatureLevel = 1

const (
	tickMax       = 10_000    // milliseconds that one Tick may add
	epochMax      = 1 << 23   // restore epochs; tokens stay below 2^63
	tokenForgotMs = 86400_000 // join tokens are forgotten so long after they expired
)

func (w *work) bootstrap(op *api.Bootstrap) error {
	if w.c.clusterID != "" {
		return errs.About(errs.Exists, w.c.clusterID, "the cluster %s exists already", w.c.clusterID)
	}
	if err := checkID("cluster id", op.GetClusterId()); err != nil {
		return err
	}
	s := op.GetSettings()
	if err := checkSettings(s); err != nil {
		return err
	}
	s = proto.CloneOf(s)
	s.Rev = 1
	put(w, settings, s)
	if id := op.GetDataKey(); id != "" {
		if err := checkID("data key", id); err != nil {
			return err
		}
		put(w, keys, &api.Keys{Generation: 1, DataPrimary: id, DataKeys: []string{id}, RotatedMs: w.meta.GetWallMs()})
	}
	w.c.clusterID = op.GetClusterId()
	w.c.featureLevel = max(w.c.featureLevel, 1)
	return nil
}

// checkSettings refuses what Apply itself could not work with. Whether the
// timing is safe is checked by whoever proposes it and at start-up.
func checkSettings(s *api.Settings) error {
	if s.GetTiming() == nil {
		return errs.About(errs.Invalid, "timing", "settings without timing")
	}
	if s.GetRingVersion() == 0 {
		return errs.About(errs.Invalid, "ring_version", "settings without a ring version")
	}
	return nil
}

func (w *work) settingsSet(op *api.SettingsSet, out *api.OpResult) error {
	s := op.GetSettings()
	if err := checkSettings(s); err != nil {
		return err
	}
	if is := get(w, settings, TableSettings).GetRev(); s.GetRev() != is {
		return errs.About(errs.Conflict, "settings", "the settings were changed: their rev is %d, not %d", is, s.GetRev())
	}
	s = proto.CloneOf(s)
	s.Rev++
	put(w, settings, s)
	out.Rev = s.GetRev()
	return nil
}

func (w *work) memberSet(op *api.MemberSet, out *api.OpResult) error {
	m := op.GetMember()
	if err := checkID("member id", m.GetId()); err != nil {
		return err
	}
	if err := checkSize("member", proto.Size(m), maxDocument); err != nil {
		return err
	}
	if levelOf(m) < w.c.featureLevel {
		return errs.About(errs.Unsupported, m.GetId(), "member %s has feature level %d, the cluster needs %d: upgrade it",
			m.GetId(), levelOf(m), w.c.featureLevel)
	}
	if err := checkFormKey(m.GetFormKey()); err != nil {
		return err
	}
	if err := w.notFormer(m.GetId(), m.GetKeyDigest()); err != nil {
		return err
	}
	was := get(w, members, m.GetId())
	if has, now := was.GetKeyDigest(), m.GetKeyDigest(); len(has) > 0 && len(now) > 0 && !bytes.Equal(has, now) {
		return errs.About(errs.Exists, m.GetId(), "there is a member %q already, with another key: choose another id, or remove the old member first", m.GetId())
	}
	m = proto.CloneOf(m)
	m.FormKeys = formKeysOf(was, w.provedKeys(m), m.GetFormKey())
	m.JoinedMs = w.meta.GetWallMs()
	if was != nil {
		m.JoinedMs = was.GetJoinedMs()
	}
	m.StableTick = w.c.ticks
	if was.GetPhase() == m.GetPhase() && was != nil {
		m.StableTick = was.GetStableTick()
	}
	put(w, members, m)
	out.Id = m.GetId()
	return nil
}

// levelOf is the feature level of a member; one that says nothing has the first.
func levelOf(m *api.Member) uint32 { return max(m.GetFeatureLevel(), 1) }

// memberRemove forgets a member. Its nodes stay assigned to it until the next
// Assign; nobody can lock them meanwhile.
func (w *work) memberRemove(op *api.MemberRemove) error {
	id := op.GetId()
	if get(w, members, id) == nil {
		return noSuch("member", id)
	}
	live := func(l *api.Lease) bool { return l.GetConductor() == id && l.GetState() == api.Lease_LIVE }
	if l := find(w, leases, byLive, id, live); len(l) > 0 {
		return errs.About(errs.WrongState, id, "member %s has the live lease %s: stop it, or wait until the lease expires", id, l[0].GetId())
	}
	if op.GetSpendFormKeys() {
		w.spendFormKeys(get(w, members, id))
	}
	w.retireMember(get(w, members, id))
	drop(w, members, id)
	w.forgetReach(id)
	return nil
}

func (w *work) assign(op *api.Assign) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	if len(op.GetNodes()) > maxList {
		return errs.New(errs.Invalid, "%d assignments in one command, at most %d", len(op.GetNodes()), maxList)
	}
	for _, a := range op.GetNodes() {
		if err := w.assignOne(a); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) assignOne(a *api.Assignment) error {
	id := a.GetNodeId()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if a.GetEpoch() != was.GetAssignEpoch()+1 {
		return errs.About(errs.Conflict, id, "node %s: assignment %d does not follow %d", id, a.GetEpoch(), was.GetAssignEpoch())
	}
	if c := a.GetConductor(); c != "" && get(w, members, c) == nil {
		return noSuch("member", c)
	}
	if l := get(w, locks, id); l != nil && a.GetConductor() != was.GetAssigned() {
		return lockedBy(l)
	}
	if err := checkSize("reason", len(a.GetReason()), maxText); err != nil {
		return err
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	n.Assigned, n.AssignEpoch, n.UnassignedReason = a.GetConductor(), a.GetEpoch(), ""
	if a.GetConductor() == "" {
		n.UnassignedReason = a.GetReason()
	}
	return nil
}

// tick moves the cluster clock.
func (w *work) tick(op *api.Tick) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	w.c.ticks = after(w.c.ticks, min(op.GetMs(), tickMax))
	return nil
}

func (w *work) tokenCreate(op *api.TokenCreate, out *api.OpResult) error {
	t := op.GetToken()
	if err := checkID("token id", t.GetId()); err != nil {
		return err
	}
	if len(t.GetSecretDigest()) != sha256.Size {
		return errs.About(errs.Invalid, "secret_digest", "the digest of the secret has %d bytes, not %d", len(t.GetSecretDigest()), sha256.Size)
	}
	if err := checkFormKey(t.GetFormKey()); err != nil {
		return err
	}
	if err := w.unspent(t.GetFormKey()); err != nil {
		return err
	}
	if get(w, tokens, t.GetId()) != nil {
		return errs.About(errs.Exists, t.GetId(), "join token %s exists already", t.GetId())
	}
	kept := 0
	for _, old := range all(w, tokens) {
		if w.meta.GetWallMs()-tokenForgotMs > old.GetExpiresMs() {
			drop(w, tokens, old.GetId())
		} else {
			kept++
		}
	}
	if kept >= maxList {
		return errs.New(errs.Busy, "there are %d join tokens, which is the most", kept)
	}
	put(w, tokens, &api.JoinToken{
		Id: t.GetId(), SecretDigest: t.GetSecretDigest(), ExpiresMs: t.GetExpiresMs(), CreatedMs: w.meta.GetWallMs(),
		FormKey: t.GetFormKey(),
	})
	out.Id = t.GetId()
	return nil
}

// tokenConsume uses a join token. The same key may use it again: its first
// answer may have been lost.
func (w *work) tokenConsume(op *api.TokenConsume, out *api.OpResult) error {
	id := op.GetId()
	t := get(w, tokens, id)
	if t == nil || !bytes.Equal(t.GetSecretDigest(), op.GetSecretDigest()) {
		return errs.About(errs.Denied, id, "the join token is not valid")
	}
	if len(op.GetKeyDigest()) != sha256.Size {
		return errs.About(errs.Invalid, "key_digest", "the digest of the joiner's key has %d bytes, not %d", len(op.GetKeyDigest()), sha256.Size)
	}
	if err := checkID("member id", op.GetMemberId()); err != nil {
		return err
	}
	if err := w.notFormer(op.GetMemberId(), op.GetKeyDigest()); err != nil { // since its token was looked at
		return err
	}
	out.Id = id
	if len(t.GetKeyDigest()) > 0 {
		if bytes.Equal(t.GetKeyDigest(), op.GetKeyDigest()) && t.GetMemberId() == op.GetMemberId() {
			return nil
		}
		return errs.About(errs.Denied, id, "the join token was used already, by member %s", t.GetMemberId())
	}
	if err := w.unspent(t.GetFormKey()); err != nil { // since the token was made
		return err
	}
	if w.meta.GetWallMs() > t.GetExpiresMs() {
		return errs.About(errs.Denied, id, "the join token has expired")
	}
	t = edit(w, tokens, id)
	t.KeyDigest, t.MemberId = op.GetKeyDigest(), op.GetMemberId()
	return nil
}

// featureLevelSet raises the level of commands that may be proposed.
func (w *work) featureLevelSet(op *api.FeatureLevelSet) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	if op.GetLevel() < w.c.featureLevel {
		return errs.New(errs.Conflict, "the feature level is %d and only rises", w.c.featureLevel)
	}
	for _, m := range all(w, members) {
		if m.GetPhase() != api.Member_LEFT && levelOf(m) < op.GetLevel() {
			return errs.About(errs.WrongState, m.GetId(), "member %s knows feature level %d only", m.GetId(), levelOf(m))
		}
	}
	w.c.featureLevel = op.GetLevel()
	return nil
}

// restoreEpochRaise is for a cluster made from an old snapshot: tokens that
// were issued after it was taken stay behind for ever, and all leases end.
func (w *work) restoreEpochRaise(op *api.RestoreEpochRaise) error {
	if op.GetEpoch() <= w.c.restoreEpoch || op.GetEpoch() >= epochMax {
		return errs.New(errs.Conflict, "the restore epoch is %d: it only rises, to at most %d", w.c.restoreEpoch, epochMax-1)
	}
	w.c.restoreEpoch = op.GetEpoch()
	for _, l := range all(w, leases) {
		if l.GetState() == api.Lease_LIVE {
			w.fence(l.GetId(), causeOperator)
		}
	}
	return nil
}
