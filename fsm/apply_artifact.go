package fsm

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of artifacts, part of the replicated format.
const (
	maxArtifacts = 10_000
	maxRamdisks  = 100
	maxArtName   = 255
	maxArch      = 32
)

func (w *work) artifactSet(op *api.ArtifactSet, out *api.OpResult) error {
	in := op.GetArtifact()
	if err := CheckArtifact(in); err != nil {
		return err
	}
	if len(in.GetCopies()) == 0 {
		return errs.About(errs.Invalid, in.GetDigest(), "artifact %s without a copy", short(in.GetDigest()))
	}
	for _, id := range in.GetCopies() {
		if get(w, members, id) == nil {
			return noSuch("member", id)
		}
	}
	if until := op.GetBeforeTick(); until > 0 && w.c.ticks >= until {
		return errs.About(errs.Conflict, in.GetDigest(), "artifact %s took too long to be recorded, its files may be gone: put it again", short(in.GetDigest()))
	}
	a := edit(w, artifacts, in.GetDigest())
	if a == nil {
		if len(all(w, artifacts)) >= maxArtifacts {
			return errs.New(errs.Busy, "there are %d artifacts, which is the most", maxArtifacts)
		}
		a = &api.Artifact{Digest: in.GetDigest(), Size: in.GetSize(), CreatedMs: w.meta.GetWallMs()}
		put(w, artifacts, a)
	}
	if a.GetSize() != in.GetSize() {
		return errs.About(errs.Conflict, a.GetDigest(), "artifact %s has %d bytes, not %d", short(a.GetDigest()), a.GetSize(), in.GetSize())
	}
	if a.GetKind() == api.Artifact_OTHER {
		a.Kind = in.GetKind()
	}
	orElse(&a.Name, in.GetName())
	orElse(&a.Arch, in.GetArch())
	orElse(&a.Purpose, in.GetPurpose())
	orElse(&a.Alias, in.GetAlias())
	for _, id := range in.GetCopies() {
		a.Copies, a.Wanted = with(a.GetCopies(), id), without(a.GetWanted(), id)
	}
	a.ReferencedTick = w.c.ticks
	a.Rev++
	out.Id, out.Rev = a.GetDigest(), a.GetRev()
	return nil
}

// CheckArtifact refuses what ArtifactSet would refuse of any state.
func CheckArtifact(a *api.Artifact) error {
	if err := checkDigest(a.GetDigest()); err != nil {
		return err
	}
	if a.GetSize() == 0 {
		return errs.About(errs.Invalid, a.GetDigest(), "artifact %s has no bytes", short(a.GetDigest()))
	}
	if len(a.GetCopies()) > maxList {
		return errs.About(errs.Invalid, a.GetDigest(), "%d copies, at most %d", len(a.GetCopies()), maxList)
	}
	for _, f := range []struct {
		what, value string
		most        int
	}{{"name", a.GetName(), maxArtName}, {"arch", a.GetArch(), maxArch}, {"purpose", a.GetPurpose(), maxID}, {"alias", a.GetAlias(), maxArtName}} {
		if f.value == "" {
			continue
		}
		if err := checkKey(f.what, f.value, f.most); err != nil {
			return err
		}
	}
	return nil
}

// checkDigest accepts SHA-256 digests in lower-case hex.
func checkDigest(s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 || strings.ToLower(s) != s {
		return errs.About(errs.Invalid, "digest", "digest %q is not 64 lower-case hex digits", clip(s, maxID))
	}
	return nil
}

// artifactCopy notes what became of a member's copy. Nothing changes when it
// is known already.
func (w *work) artifactCopy(op *api.ArtifactCopy, out *api.OpResult) error {
	is := get(w, artifacts, op.GetDigest())
	if is == nil {
		return noSuch("artifact", clip(op.GetDigest(), maxID))
	}
	id := op.GetMemberId()
	copies, wanted := is.GetCopies(), is.GetWanted()
	switch op.GetState() {
	case api.ArtifactCopy_HAS:
		copies, wanted = with(copies, id), without(wanted, id)
	case api.ArtifactCopy_LACKS:
		copies, wanted = without(copies, id), without(wanted, id)
	case api.ArtifactCopy_WANTED:
		if !slices.Contains(copies, id) {
			wanted = with(wanted, id)
		}
	default:
		return errs.New(errs.Invalid, "unknown state %d of a copy", op.GetState())
	}
	if op.GetState() != api.ArtifactCopy_LACKS && get(w, members, id) == nil {
		return noSuch("member", id)
	}
	out.Id, out.Rev = is.GetDigest(), is.GetRev()
	if slices.Equal(copies, is.GetCopies()) && slices.Equal(wanted, is.GetWanted()) {
		return nil
	}
	a := edit(w, artifacts, op.GetDigest())
	a.Copies, a.Wanted = copies, wanted
	a.Rev++
	out.Rev = a.GetRev()
	return nil
}

func (w *work) artifactTouch(op *api.ArtifactTouch) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	if len(op.GetDigests()) > maxList {
		return errs.New(errs.Invalid, "%d digests in one command, at most %d", len(op.GetDigests()), maxList)
	}
	for _, d := range op.GetDigests() {
		w.touch(d)
	}
	return nil
}

func (w *work) touch(digest string) {
	if a := get(w, artifacts, digest); a != nil && a.GetReferencedTick() != w.c.ticks {
		edit(w, artifacts, digest).ReferencedTick = w.c.ticks
	}
}

func (w *work) artifactDrop(op *api.ArtifactDrop) error {
	a := get(w, artifacts, op.GetDigest())
	if a == nil {
		return noSuch("artifact", clip(op.GetDigest(), maxID))
	}
	if unused := op.GetUnusedForMs(); unused > 0 {
		if a.GetReferencedTick() != op.GetReferencedTick() || after(a.GetReferencedTick(), unused) > w.c.ticks {
			return errs.About(errs.Conflict, a.GetDigest(), "artifact %s was referred to meanwhile", short(a.GetDigest()))
		}
	}
	if by := w.referredBy(a); by != "" {
		return errs.About(errs.WrongState, a.GetDigest(), "artifact %s is used by %s", short(a.GetDigest()), by)
	}
	drop(w, artifacts, a.GetDigest())
	return nil
}

// referredBy says who uses an artifact, "" when nobody does.
func (w *work) referredBy(a *api.Artifact) string {
	for _, r := range all(w, ramdisks) {
		if r.GetKernel() == a.GetDigest() || r.GetInitramfs() == a.GetDigest() {
			return ramdiskLabel(r)
		}
	}
	for _, f := range find(w, flows, byRunning, "", running) {
		if mentions(f.GetArgs(), a) {
			return flowLabel(f)
		}
	}
	for _, n := range all(w, nodes) {
		if mentions(n.GetInstanceInfo(), a) {
			return nodeLabel(n)
		}
	}
	return ""
}

// mentions reports whether a document names an artifact: by its digest, or by
// the other checksum that its bytes are known by.
func mentions(doc []byte, a *api.Artifact) bool {
	if len(doc) < len(a.GetDigest()) {
		return false
	}
	if bytes.Contains(doc, []byte(a.GetDigest())) {
		return true
	}
	return a.GetAlias() != "" && bytes.Contains(doc, []byte(a.GetAlias()))
}

func ramdiskLabel(r *api.Ramdisk) string {
	return "the ramdisk for " + r.GetArch() + ", purpose " + r.GetPurpose()
}
func flowLabel(f *api.Flow) string { return flowName(f) + " of node " + f.GetNodeId() }
func nodeLabel(n *api.Node) string { return "the instance_info of node " + n.GetId() }

func (w *work) ramdiskSet(op *api.RamdiskSet, out *api.OpResult) error {
	in := op.GetRamdisk()
	if err := checkKey("arch", in.GetArch(), maxArch); err != nil {
		return err
	}
	if err := checkID("purpose", in.GetPurpose()); err != nil {
		return err
	}
	if err := checkSize("description", len(in.GetDescription()), maxText); err != nil {
		return err
	}
	for _, part := range []struct {
		what, digest string
		kind         api.Artifact_Kind
	}{{"kernel", in.GetKernel(), api.Artifact_KERNEL}, {"initramfs", in.GetInitramfs(), api.Artifact_INITRAMFS}} {
		a := get(w, artifacts, part.digest)
		switch {
		case a == nil:
			return noSuch(part.what, clip(part.digest, maxID))
		case a.GetKind() != part.kind:
			return errs.About(errs.Invalid, part.what, "artifact %s is of kind %s, not %s", short(part.digest), kindName(a.GetKind()), part.what)
		case len(a.GetCopies()) == 0:
			return errs.About(errs.WrongState, part.what, "artifact %s is on no peer", short(part.digest))
		}
	}
	key := ramdisks.key(in)
	was := get(w, ramdisks, key)
	if in.GetRev() != 0 && in.GetRev() != was.GetRev() {
		return errs.About(errs.Conflict, key, "the ramdisk %s was changed: its rev is %d, not %d", key, was.GetRev(), in.GetRev())
	}
	if was == nil && len(all(w, ramdisks)) >= maxRamdisks {
		return errs.New(errs.Busy, "there are %d ramdisks, which is the most", maxRamdisks)
	}
	w.unused(was)
	r := proto.CloneOf(in)
	r.Rev, r.SetMs = was.GetRev()+1, w.meta.GetWallMs()
	put(w, ramdisks, r)
	out.Id, out.Rev = key, r.GetRev()
	return nil
}

// unused starts the time that the parts of a former ramdisk are kept:
// machines may be loading them.
func (w *work) unused(r *api.Ramdisk) {
	if r != nil {
		w.touch(r.GetKernel())
		w.touch(r.GetInitramfs())
	}
}

func (w *work) ramdiskDelete(op *api.RamdiskDelete) error {
	key := ramdiskKey(op.GetArch(), op.GetPurpose())
	r := get(w, ramdisks, key)
	if r == nil {
		return noSuch("ramdisk", clip(key, 2*maxID))
	}
	w.unused(r)
	drop(w, ramdisks, key)
	return nil
}

func ramdiskKey(arch, purpose string) string { return arch + "/" + purpose }

func kindName(k api.Artifact_Kind) string { return strings.ToLower(k.String()) }

// short is enough of a digest for people.
func short(digest string) string { return clip(digest, 12) }

func orElse(p *string, value string) {
	if *p == "" {
		*p = value
	}
}

// with is a sorted list with an element in it; the list given stays as it is.
func with(list []string, s string) []string {
	i, found := slices.BinarySearch(list, s)
	if found {
		return list
	}
	return slices.Insert(slices.Clone(list), i, s)
}

func without(list []string, s string) []string {
	i, found := slices.BinarySearch(list, s)
	if !found {
		return list
	}
	return slices.Delete(slices.Clone(list), i, i+1)
}
