package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Operations on artifacts, short.

func digestOf(n int) string {
	d := sha256.Sum256([]byte{byte(n)})
	return hex.EncodeToString(d[:])
}

func artifactSet(n int, kind api.Artifact_Kind, copies ...string) *api.Op {
	return &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: &api.Artifact{
		Digest: digestOf(n), Size: uint64(100 + n), Kind: kind, Copies: copies,
	}}}}
}

func artifactCopy(n int, member string, state api.ArtifactCopy_State) *api.Op {
	return &api.Op{Op: &api.Op_ArtifactCopy{ArtifactCopy: &api.ArtifactCopy{Digest: digestOf(n), MemberId: member, State: state}}}
}

func artifactTouch(term uint64, ns ...int) *api.Op {
	op := &api.ArtifactTouch{Term: term}
	for _, n := range ns {
		op.Digests = append(op.Digests, digestOf(n))
	}
	return &api.Op{Op: &api.Op_ArtifactTouch{ArtifactTouch: op}}
}

func artifactDrop(n int) *api.Op {
	return &api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: digestOf(n)}}}
}

func artifactDropUnused(n int, tick, unused uint64) *api.Op {
	return &api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{Digest: digestOf(n), ReferencedTick: tick, UnusedForMs: unused}}}
}

func ramdiskSet(arch string, kernel, initramfs int) *api.Op {
	return &api.Op{Op: &api.Op_RamdiskSet{RamdiskSet: &api.RamdiskSet{Ramdisk: &api.Ramdisk{
		Arch: arch, Purpose: "default", Kernel: digestOf(kernel), Initramfs: digestOf(initramfs),
	}}}}
}

// artifactOp draws operations on four artifacts: two kernels, two initramfs.
func (g *gen) artifactOp() *api.Op {
	n := g.n(3, "artifact")
	kind := []api.Artifact_Kind{api.Artifact_KERNEL, api.Artifact_INITRAMFS}[n%2]
	switch g.n(7, "artifact op") {
	case 0, 1:
		op := artifactSet(n, kind, g.member())
		if g.rarely("alias") {
			op.GetArtifactSet().Artifact.Alias = "sha512:" + strings.Repeat(digestOf(n), 2)
		}
		if g.rarely("other size") {
			op.GetArtifactSet().Artifact.Size++
		}
		if g.rarely("until") {
			op.GetArtifactSet().BeforeTick = g.v.Globals().GetTicks() + uint64(g.n(1, "more"))
		}
		return op
	case 2, 3:
		return artifactCopy(n, g.member(), api.ArtifactCopy_State(g.n(2, "state")))
	case 4:
		return artifactTouch(g.wrongTerm(), n, g.n(3, "other"))
	case 5:
		if g.n(1, "unused") == 1 {
			return artifactDropUnused(n, g.v.Artifact(digestOf(n)).GetReferencedTick(), uint64(1+g.n(9000, "ms")))
		}
		return artifactDrop(n)
	case 6:
		return &api.Op{Op: &api.Op_RamdiskDelete{RamdiskDelete: &api.RamdiskDelete{Arch: "x86_64", Purpose: "default"}}}
	}
	op := ramdiskSet("x86_64", 2*g.n(1, "kernel"), n)
	op.GetRamdiskSet().Ramdisk.Rev = uint64(g.n(2, "rev"))
	return op
}

// artifactInvariants: a ramdisk never lacks its parts, lists are sorted and
// nobody both has a copy and is to get one.
func artifactInvariants(v *View, check func(ok bool, format string, args ...any)) {
	for a := range v.Artifacts() {
		check(slices.IsSorted(a.GetCopies()) && slices.IsSorted(a.GetWanted()), "unsorted copies of %v", a)
		for _, id := range a.GetWanted() {
			check(!slices.Contains(a.GetCopies(), id), "%s has and lacks %v", id, a)
		}
		check(a.GetAlias() == "" || v.ArtifactByChecksum(a.GetAlias()) == a, "alias of %v", a)
		check(a.GetReferencedTick() <= v.Globals().GetTicks(), "%v was used in the future", a)
	}
	users := v.ArtifactUsers()
	for _, r := range v.Ramdisks() {
		for _, d := range []string{r.GetKernel(), r.GetInitramfs()} {
			check(v.Artifact(d) != nil && len(users[d]) > 0, "%v without %s", r, d)
		}
	}
}

func artifactFixture(t *testing.T) *fixture {
	f := newFixture(t)
	f.ok(memberSet("p0"))
	f.ok(memberSet("p1"))
	f.ok(artifactSet(1, api.Artifact_KERNEL, "p0"))
	f.ok(artifactSet(2, api.Artifact_INITRAMFS, "p0", "p1"))
	return f
}

func TestArtifactSetMerges(t *testing.T) {
	f := artifactFixture(t)
	f.ok(artifactCopy(1, "p1", api.ArtifactCopy_WANTED))
	op := artifactSet(1, api.Artifact_OTHER, "p1")
	op.GetArtifactSet().Artifact.Name = "vmlinuz"
	f.ok(op)
	a := f.s.View().Artifact(digestOf(1))
	if !slices.Equal(a.GetCopies(), []string{"p0", "p1"}) || len(a.GetWanted()) != 0 || a.GetKind() != api.Artifact_KERNEL || a.GetName() != "vmlinuz" {
		t.Errorf("merged to %v", a)
	}
	bad := artifactSet(1, api.Artifact_KERNEL, "p0")
	bad.GetArtifactSet().Artifact.Size++
	f.fails(errs.Conflict, bad)
	f.fails(errs.NotFound, artifactSet(3, api.Artifact_KERNEL, "stranger"))
	f.fails(errs.Invalid, artifactSet(3, api.Artifact_KERNEL))
	for _, d := range []string{"", "abc", strings.ToUpper(digestOf(1)), strings.Repeat("g", 64)} {
		bad := artifactSet(3, api.Artifact_KERNEL, "p0")
		bad.GetArtifactSet().Artifact.Digest = d
		f.fails(errs.Invalid, bad)
	}
}

// Peers keep files without a record for a time of the cluster's clock only.
func TestArtifactSetComesTooLate(t *testing.T) {
	f := artifactFixture(t)
	op := artifactSet(3, api.Artifact_KERNEL, "p0", "p1")
	f.ok(tick(1000, 1))
	op.GetArtifactSet().BeforeTick = f.s.View().Globals().GetTicks()
	f.fails(errs.Conflict, op)
	op.GetArtifactSet().BeforeTick++
	f.ok(op)
}

func TestArtifactCopies(t *testing.T) {
	f := artifactFixture(t)
	f.ok(artifactCopy(1, "p1", api.ArtifactCopy_WANTED))
	f.ok(artifactCopy(1, "p0", api.ArtifactCopy_WANTED)) // has it: nothing changes
	if a := f.s.View().Artifact(digestOf(1)); !slices.Equal(a.GetWanted(), []string{"p1"}) {
		t.Errorf("wanted %v", a.GetWanted())
	}
	f.ok(artifactCopy(1, "p1", api.ArtifactCopy_HAS))
	f.ok(artifactCopy(1, "p0", api.ArtifactCopy_LACKS))
	f.ok(artifactCopy(1, "gone", api.ArtifactCopy_LACKS)) // a former member's
	if a := f.s.View().Artifact(digestOf(1)); !slices.Equal(a.GetCopies(), []string{"p1"}) || len(a.GetWanted()) != 0 {
		t.Errorf("copies %v, wanted %v", a.GetCopies(), a.GetWanted())
	}
	f.fails(errs.NotFound, artifactCopy(1, "gone", api.ArtifactCopy_HAS))
	f.fails(errs.NotFound, artifactCopy(9, "p0", api.ArtifactCopy_HAS))
}

func TestRamdiskNeedsItsParts(t *testing.T) {
	f := artifactFixture(t)
	f.fails(errs.NotFound, ramdiskSet("x86_64", 1, 7))
	f.fails(errs.Invalid, ramdiskSet("x86_64", 2, 1)) // kinds swapped
	f.ok(ramdiskSet("x86_64", 1, 2))
	f.fails(errs.WrongState, artifactDrop(1))
	f.fails(errs.WrongState, artifactDrop(2))
	stale := ramdiskSet("x86_64", 1, 2)
	stale.GetRamdiskSet().Ramdisk.Rev = 5
	f.fails(errs.Conflict, stale)
	f.ok(artifactCopy(1, "p0", api.ArtifactCopy_LACKS))
	f.fails(errs.WrongState, ramdiskSet("aarch64", 1, 2)) // the kernel is nowhere
	if got := f.s.View().ArtifactUsers()[digestOf(1)]; len(got) != 1 || !strings.Contains(got[0], "x86_64") {
		t.Errorf("users %q", got)
	}
	f.ok(&api.Op{Op: &api.Op_RamdiskDelete{RamdiskDelete: &api.RamdiskDelete{Arch: "x86_64", Purpose: "default"}}})
	f.ok(artifactDrop(1))
}

// What is unused for a day goes; a use meanwhile, seen by anybody, keeps it.
func TestDropUnused(t *testing.T) {
	f := artifactFixture(t)
	const day = 20_000
	at := f.s.View().Artifact(digestOf(1)).GetReferencedTick()
	f.ok(tick(10_000, f.term))
	f.fails(errs.Conflict, artifactDropUnused(1, at, day))
	f.ok(artifactTouch(f.term, 1, 9))
	f.ok(tick(10_000, f.term))
	f.fails(errs.Conflict, artifactDropUnused(1, at, day))
	f.ok(artifactDropUnused(2, at, day))
	f.ok(tick(10_000, f.term))
	f.fails(errs.Conflict, artifactDropUnused(1, at, day)) // an old picture
	f.ok(artifactDropUnused(1, 10_000, day))
	f.fails(errs.NotLeader, artifactTouch(f.term-1, 1))
}

// Flows under way and instance_info keep the images that they name.
func TestDocumentsRefer(t *testing.T) {
	f := artifactFixture(t)
	alias := artifactSet(1, api.Artifact_KERNEL, "p0")
	sum := strings.Repeat("ab", 64)
	alias.GetArtifactSet().Artifact.Alias = "sha512:" + sum
	f.ok(alias)
	f.ok(nodeCreate(nodeID(1), "n1"))
	f.ok(nodePatch(nodeID(1), &api.Node{InstanceInfo: []byte(`{"image_checksum":"sha512:` + sum + `","x":"` + digestOf(2) + `"}`)}, "instance_info"))
	f.fails(errs.WrongState, artifactDrop(1))
	f.fails(errs.WrongState, artifactDrop(2))
	users := f.s.View().ArtifactUsers()
	if len(users[digestOf(1)]) != 1 || len(users[digestOf(2)]) != 1 {
		t.Errorf("users %v", users)
	}
	f.ok(nodePatch(nodeID(1), &api.Node{InstanceInfo: []byte(`{}`)}, "instance_info"))
	f.ok(artifactDrop(1))
}

func TestArtifactByRef(t *testing.T) {
	f := artifactFixture(t)
	op := artifactSet(3, api.Artifact_IMAGE, "p0")
	op.GetArtifactSet().Artifact.Name = "debian.img"
	f.ok(op)
	v := f.s.View()
	for _, ref := range []string{digestOf(3), digestOf(3)[:8], "sha256:" + digestOf(3), "debian.img"} {
		if a, err := v.ArtifactByRef(ref); err != nil || a.GetDigest() != digestOf(3) {
			t.Errorf("%s: %v, %v", ref, a, err)
		}
	}
	for _, ref := range []string{"", digestOf(3)[:7], "nothing"} {
		if a, err := v.ArtifactByRef(ref); errs.KindOf(err) != errs.NotFound {
			t.Errorf("%q: %v, %v", ref, a, err)
		}
	}
}

func TestArtifactsSurviveSnapshot(t *testing.T) {
	f := artifactFixture(t)
	f.ok(nodeCreate(nodeID(1), "n1")) // history and audit stand before them
	f.ok(ramdiskSet("x86_64", 1, 2))
	var b bytes.Buffer
	if _, err := f.s.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	s := New()
	if err := s.Restore(&b); err != nil {
		t.Fatal(err)
	}
	was, _ := f.s.Digest()
	if is, _ := s.Digest(); is != was || s.View().Ramdisk("x86_64", "default") == nil || len(s.View().History(nodeID(1))) == 0 {
		t.Error("not the same after a restore")
	}
}
