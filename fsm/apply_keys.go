package fsm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

const (
	formerKept  = 1000 // members that left, remembered to tell them
	resealMax   = 100  // documents in one KeysReseal
	maxSealed   = 128 << 10
	sealedStart = "ironring-sealed:1:" // package seal: then the key's id and a colon
)

// keysRequest notes that new keys are wanted; the leader makes them.
func (w *work) keysRequest(op *api.KeysRequest) error {
	if op.GetReason() == "" {
		return errs.About(errs.Invalid, "reason", "no reason for new keys given")
	}
	w.keysDue(op.GetReason())
	return nil
}

// keysDue asks for new keys. Several reasons before they come ask once.
func (w *work) keysDue(reason string) {
	k := proto.CloneOf(get(w, keys, TableKeys))
	if k == nil {
		k = &api.Keys{}
	}
	k.Due = clip(reason, maxText)
	put(w, keys, k)
}

// keysRotate brings in a new generation. That it holds the keys for exactly
// the members of this moment is compared here: one that was removed while they
// were made must not get them, one that joined must.
func (w *work) keysRotate(op *api.KeysRotate) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	was := get(w, keys, TableKeys)
	if op.GetGeneration() != was.GetGeneration()+1 {
		return errs.About(errs.Conflict, "keys", "the keys are of generation %d, not %d", was.GetGeneration(), op.GetGeneration()-1)
	}
	id := op.GetDataPrimary()
	if err := checkID("data key", id); err != nil {
		return err
	}
	if slices.Contains(was.GetDataKeys(), id) {
		return errs.About(errs.Exists, id, "there is a data key %s already", id)
	}
	total := 0
	want := map[string][]byte{}
	for _, m := range all(w, members) {
		if m.GetPhase() != api.Member_LEFT {
			want[m.GetId()] = m.GetSealKey()
		}
	}
	for _, s := range op.GetSealed() {
		key, ok := want[s.GetMember()]
		if !ok || len(key) == 0 || !bytes.Equal(key, s.GetSealKey()) || len(s.GetBox()) == 0 {
			return errs.About(errs.Conflict, s.GetMember(), "the new keys are not sealed to what member %s is now", s.GetMember())
		}
		delete(want, s.GetMember())
		total += len(s.GetBox())
	}
	for m := range want { // any of them: the command is refused whichever it is
		if len(want) == 1 {
			return errs.About(errs.Conflict, m, "the new keys are not sealed to member %s", m)
		}
		return errs.New(errs.Conflict, "the new keys are not sealed to %d of the members", len(want))
	}
	if err := checkSize("sealed keys", total, maxSealed); err != nil {
		return err
	}
	k := &api.Keys{
		Generation: op.GetGeneration(), DataPrimary: id, Sealed: op.GetSealed(), RotatedMs: w.meta.GetWallMs(),
		DataKeys: append(slices.Clone(was.GetDataKeys()), id),
	}
	put(w, keys, k)
	return nil
}

// keysReseal replaces sealed values. A document that changed meanwhile is left
// out: the leader looks again.
func (w *work) keysReseal(op *api.KeysReseal) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	if len(op.GetDocs()) > resealMax {
		return errs.New(errs.Invalid, "%d documents in one command, at most %d", len(op.GetDocs()), resealMax)
	}
	for _, d := range op.GetDocs() {
		doc, err := w.sealedDoc(d.GetNodeId(), d.GetPlace())
		if err != nil {
			return err
		}
		if doc == nil {
			continue
		}
		if sum := sha256.Sum256(*doc); !bytes.Equal(sum[:], d.GetDigest()) {
			continue
		}
		if !bytes.Equal(unsealed(*doc), unsealed(d.GetDoc())) {
			return errs.About(errs.Invalid, d.GetNodeId(), "%s of node %s would change by more than its sealed values", d.GetPlace(), d.GetNodeId())
		}
		*doc = d.GetDoc()
	}
	return nil
}

// sealedDoc is a document of a node, its flow, or a port that may hold sealed
// values, for modification; nil when the record is gone.
func (w *work) sealedDoc(id, place string) (*[]byte, error) {
	switch place {
	case "driver_info", "properties", "extra", "instance_info":
		n := edit(w, nodes, id)
		if n == nil {
			return nil, nil
		}
		return map[string]*[]byte{
			"driver_info": &n.DriverInfo, "properties": &n.Properties, "extra": &n.Extra, "instance_info": &n.InstanceInfo,
		}[place], nil
	case "flow":
		if f := edit(w, flows, id); f != nil {
			return &f.Args, nil
		}
		return nil, nil
	case "port/extra":
		if p := edit(w, ports, id); p != nil {
			return &p.Extra, nil
		}
		return nil, nil
	}
	return nil, errs.About(errs.Invalid, "place", "there are no sealed values in %q", place)
}

// keysRetire forgets data keys that nothing needs any more.
func (w *work) keysRetire(op *api.KeysRetire) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	k := proto.CloneOf(get(w, keys, TableKeys))
	if k == nil {
		return errs.New(errs.NotFound, "the cluster has no keys yet")
	}
	for _, id := range op.GetDataKeys() {
		if id == k.GetDataPrimary() {
			return errs.About(errs.Conflict, id, "data key %s is the one in use", id)
		}
		if what, used := w.sealedUnder(id); used {
			return errs.About(errs.Conflict, id, "data key %s is still needed for %s", id, what)
		}
		k.DataKeys = slices.DeleteFunc(k.DataKeys, func(have string) bool { return have == id })
	}
	put(w, keys, k)
	return nil
}

// sealedUnder names a record that has a value sealed with a data key, as the
// command sees it.
func (w *work) sealedUnder(id string) (what string, used bool) {
	needle := []byte(sealedStart + id + ":")
	has := func(m proto.Message) bool {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		must(err)
		return bytes.Contains(raw, needle)
	}
	for _, s := range w.slots {
		if s.obj != nil && has(s.obj) {
			return "a record of this command", true
		}
	}
	for _, t := range tables {
		if t.tableName() == tableRequests { // answers hold no documents
			continue
		}
		for key, r := range t.records(w.db) {
			if w.slots[slotKey{t.tableName(), key}] == nil && has(r) {
				return fmt.Sprintf("%s %s", t.tableName(), key), true
			}
		}
	}
	return "", false
}

// checkSealed refuses values under data keys that are not in use: whoever
// sealed them was asleep while the key was retired, and nobody could open them.
func (w *work) checkSealed(cmd *api.Command) error {
	k := get(w, keys, TableKeys)
	if len(k.GetDataKeys()) == 0 {
		return nil
	}
	for _, op := range cmd.GetOps() {
		raw, err := proto.Marshal(op)
		must(err)
		for {
			i := bytes.Index(raw, []byte(sealedStart))
			if i < 0 {
				break
			}
			raw = raw[i+len(sealedStart):]
			id, _, _ := bytes.Cut(raw[:min(len(raw), maxID)], []byte(":"))
			if !slices.Contains(k.GetDataKeys(), string(id)) {
				return errs.About(errs.Conflict, "keys", "a value is sealed with a key that is not in use (any more): send it again")
			}
		}
	}
	return nil
}

// unsealed is a document without what its sealed values say.
func unsealed(doc []byte) []byte {
	const open = `"` + sealedStart
	var out []byte
	for {
		i := bytes.Index(doc, []byte(open))
		if i < 0 {
			return append(out, doc...)
		}
		out = append(out, doc[:i+len(open)]...)
		doc = doc[i+len(open):]
		end := bytes.IndexByte(doc, '"') // a sealed value has no character that JSON escapes
		if end < 0 {
			return append(out, doc...)
		}
		doc = doc[end:]
	}
}

// retireMember remembers who is no member any more, and asks for new keys: it
// knows the present ones.
func (w *work) retireMember(m *api.Member) {
	put(w, former, &api.FormerMember{
		Id: m.GetId(), KeyDigest: m.GetKeyDigest(), RemovedMs: w.meta.GetWallMs(), Principal: w.meta.GetPrincipal(),
	})
	list := all(w, former)
	if len(list) > formerKept {
		oldest := slices.MinFunc(list, func(a, b *api.FormerMember) int { return int(a.GetIndex()) - int(b.GetIndex()) })
		drop(w, former, formerKey(oldest))
	}
	if len(m.GetSealKey()) > 0 { // else it never had keys
		w.keysDue("member " + m.GetId() + " is gone")
	}
}

// notFormer refuses what is done for a member that was removed, or left, since
// somebody looked: a join that another peer slept on or that is repeated, the
// last announcement of one that leaves. The same id with another key is another
// peer. Records without a key are told from nobody (admit of package cluster
// takes them so, too).
func (w *work) notFormer(id string, keyDigest []byte) error {
	if len(keyDigest) == 0 || get(w, former, formerKey(&api.FormerMember{Id: id, KeyDigest: keyDigest})) == nil {
		return nil
	}
	return errs.About(errs.Denied, id, "peer %s is a former member, by this key: empty its data directory and join again", id)
}

func formerKey(f *api.FormerMember) string { return fmt.Sprintf("%s/%x", f.GetId(), f.GetKeyDigest()) }
