package duties

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// artifactWorld is a state, and a clock that the test moves.
type artifactWorld struct {
	t     *testing.T
	store *fsm.Store
	index uint64
	now   time.Duration
	duty  *artifacts
}

func (w *artifactWorld) Now() time.Time         { return time.UnixMilli(1) }
func (w *artifactWorld) Elapsed() time.Duration { return w.now }

func newArtifactWorld(t *testing.T, members ...string) *artifactWorld {
	w := &artifactWorld{t: t, store: fsm.New()}
	w.duty = newArtifacts(Config{Self: "a", Term: 1, Store: w.store, Propose: w.propose, Clock: w, Logger: slog.New(slog.DiscardHandler)})
	w.ok(&api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "c", Settings: &api.Settings{Timing: &api.Timing{LeaseMs: 12000, HolderMs: 8000}, MaxVoters: 3, RingVersion: 1}}}})
	for _, id := range members {
		w.join(id)
	}
	return w
}

func (w *artifactWorld) join(id string) {
	w.ok(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{Id: id, Phase: api.Member_READY, FeatureLevel: fsm.FeatureLevel}}}},
		&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l-" + id, Conductor: id, MachineId: "m-" + id, BootId: "b"}, DirectoryLock: true}}})
}

func (w *artifactWorld) lose(id string) {
	w.ok(&api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: "l-" + id}}})
}

func (w *artifactWorld) propose(_ context.Context, cmd *api.Command) (*api.Result, error) {
	w.index++
	cmd.Meta = fsm.CompleteMeta(cmd.GetMeta(), "a", 1)
	b, err := proto.Marshal(&api.Entry{Commands: []*api.Command{cmd}})
	if err != nil {
		return nil, err
	}
	res, err := w.store.Apply(w.index, 1, b)
	if err != nil {
		return nil, err
	}
	if f := res[0].GetFailure(); f != nil {
		return nil, errs.New(errs.ParseKind(f.GetKind()), "%s", f.GetMessage())
	}
	return res[0], nil
}

func (w *artifactWorld) ok(ops ...*api.Op) {
	w.t.Helper()
	if _, err := w.propose(w.t.Context(), &api.Command{Meta: &api.Meta{Principal: "system", Reason: "test"}, Ops: ops}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *artifactWorld) put(name string, kind api.Artifact_Kind, copies ...string) string {
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:])
	w.ok(&api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: &api.Artifact{Digest: digest, Size: 1, Kind: kind, Name: name, Copies: copies}}}})
	return digest
}

// pass lets time go by, of the leader's clock and of the cluster's, and does
// the duty.
func (w *artifactWorld) pass(d time.Duration) {
	w.t.Helper()
	w.now += d
	for left := d; left > 0; left -= 10 * time.Second {
		w.ok(&api.Op{Op: &api.Op_Tick{Tick: &api.Tick{Ms: uint64(min(left, 10*time.Second).Milliseconds()), Term: 1}}})
	}
	if err := w.duty.round(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *artifactWorld) want(digest, copies, wanted string) {
	w.t.Helper()
	a := w.store.View().Artifact(digest)
	if fmt.Sprint(a.GetCopies()) != copies || fmt.Sprint(a.GetWanted()) != wanted {
		w.t.Errorf("copies %v, wanted %v; should be %s, %s", a.GetCopies(), a.GetWanted(), copies, wanted)
	}
}

func TestArtifactsAreCopiedAfterALoss(t *testing.T) {
	w := newArtifactWorld(t, "a", "b", "c")
	d := w.put("x", api.Artifact_KERNEL, "a", "b")
	w.pass(time.Minute)
	w.pass(time.Minute)
	w.want(d, "[a b]", "[]")
	w.lose("b")
	w.pass(time.Second)
	w.pass(copyLossWait - 2*time.Second)
	w.want(d, "[a b]", "[]") // it may be back soon
	w.pass(2 * time.Second)
	w.want(d, "[a b]", "[c]")
	w.pass(time.Minute)
	w.want(d, "[a b]", "[c]") // once is enough
	w.lose("c")               // the one that should fetch dies as well
	w.pass(time.Second)
	w.pass(time.Minute)
	w.want(d, "[a b]", "[]") // nobody is left to copy to
	w.ok(&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "b"}}})
	w.pass(time.Second)
	w.want(d, "[a]", "[]")
	w.join("d")
	w.pass(time.Second)
	w.pass(time.Minute)
	w.want(d, "[a]", "[d]")
}

func TestArtifactOfALonePeerGetsASecondCopy(t *testing.T) {
	w := newArtifactWorld(t, "a")
	d := w.put("x", api.Artifact_KERNEL, "a")
	w.pass(time.Minute)
	w.pass(time.Minute)
	w.want(d, "[a]", "[]")
	w.join("b")
	w.pass(time.Second)
	w.pass(time.Minute)
	w.want(d, "[a]", "[b]")
}

// Of an artifact whose copies are all gone nothing can be copied.
func TestNoCopyNothingToDo(t *testing.T) {
	w := newArtifactWorld(t, "a", "b", "c")
	d := w.put("x", api.Artifact_KERNEL, "c")
	w.lose("c")
	w.pass(time.Second)
	w.pass(time.Hour)
	w.want(d, "[c]", "[]")
}

func TestUnusedArtifactsAreDropped(t *testing.T) {
	w := newArtifactWorld(t, "a", "b")
	kernel, initramfs := w.put("k", api.Artifact_KERNEL, "a", "b"), w.put("i", api.Artifact_INITRAMFS, "a", "b")
	loose := w.put("l", api.Artifact_OTHER, "a", "b")
	w.ok(&api.Op{Op: &api.Op_RamdiskSet{RamdiskSet: &api.RamdiskSet{Ramdisk: &api.Ramdisk{Arch: "x86_64", Purpose: "default", Kernel: kernel, Initramfs: initramfs}}}})
	w.pass(23 * time.Hour)
	if w.store.View().Artifact(loose) == nil {
		t.Fatal("dropped before a day was over")
	}
	w.pass(time.Hour)
	v := w.store.View()
	if v.Artifact(loose) != nil || v.Artifact(kernel) == nil || v.Artifact(initramfs) == nil {
		t.Error("the unused one and only that should be gone")
	}
	w.ok(&api.Op{Op: &api.Op_RamdiskDelete{RamdiskDelete: &api.RamdiskDelete{Arch: "x86_64", Purpose: "default"}}})
	w.pass(time.Hour)
	if w.store.View().Artifact(kernel) == nil {
		t.Error("dropped within a day of its last use")
	}
	w.pass(24 * time.Hour)
	if w.store.View().Artifact(kernel) != nil {
		t.Error("kept though unused")
	}
}
