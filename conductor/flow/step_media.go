package flow

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Boot media: a node that does not boot from the network gets its ramdisk on
// the virtual CD drive of its BMC. The medium is served by this peer under a
// path that holds the boot nonce, which nobody else knows. The path is dead
// when the boot record no longer says ramdisk.

// usesMedia says whether the node boots from virtual media.
func (r *runner) usesMedia() bool { return node.VirtualMedia(r.cfg.Store.View().Node(r.node)) }

// insertBootMedia puts the medium of the boot to come into the first CD drive,
// after what is in it was ejected, and commits that it is there.
func (r *runner) insertBootMedia(ctx context.Context, p position) error {
	v := r.cfg.Store.View()
	address := v.Member(r.cfg.Member).GetBootAddress()
	if address == "" {
		return errs.About(errs.Unsupported, r.node, "this peer has no boot address that a BMC could fetch a medium from: set advertise.boot")
	}
	image := "http://" + address + bootpath.Medium(r.node, v.Node(r.node).GetBoot().GetNonce())
	now, err := r.slot(ctx, "")
	if err != nil {
		return r.loginError(err)
	}
	if now.GetInserted() && now.GetImage() != image {
		if err := r.commitMedia(ctx, "ejected before another medium")(r.eject(ctx, p, now.GetSlot())); err != nil {
			return err
		}
	}
	return r.commitMedia(ctx, "boot medium inserted")(r.mutate(ctx, change{
		kind: "insert_media", args: image, settle: hardwareSettle, tries: 2,
		seen: func(ctx context.Context) (bool, error) {
			is, err := r.slot(ctx, "")
			return err == nil && is.GetInserted() && is.GetImage() == image, err
		},
		act: func(ctx context.Context, g grant) error { return r.cfg.BMC.InsertMedia(ctx, r.node, g, "", image) },
	}))
}

// ejectBootMedia takes our medium out. What somebody else put in stays.
func (r *runner) ejectBootMedia(ctx context.Context, p position) error {
	now, err := r.slot(ctx, "")
	switch {
	case errors.Is(err, errs.Unsupported) || errors.Is(err, errs.NotFound):
		return nil // then there is none of ours either
	case err != nil:
		return r.loginError(err)
	case !now.GetInserted() && r.intent() == nil, now.GetInserted() && !strings.Contains(now.GetImage(), bootpath.MediaOf(r.node)):
		return nil
	}
	return r.commitMedia(ctx, "boot medium ejected")(r.eject(ctx, p, now.GetSlot()))
}

// mediumLeft says whether our medium may be in the drive although nobody boots
// from it any more: of a boot that this power action ends, or of a flow that
// failed and could not eject it.
func (r *runner) mediumLeft(p position) bool {
	return r.cfg.Store.View().Node(r.node).GetBoot().GetMedium() || r.usesMedia() && r.powersLeftBoot(p)
}

// leftLimit is how long a flow that fails looks after its medium, leftRoom how
// long its lock must last besides what a change may need to land.
const (
	leftLimit = 20 * time.Second
	leftRoom  = 30 * time.Second
)

// leavesMedium ejects the boot medium of a flow that fails, and says whether it
// is left in the drive; then the node's next flow that switches the power ejects
// it. What failed matters more: nothing is tried where the BMC is not known to be
// the machine's or where the lock or the state runs out soon, and nothing again
// by a new holder: an eject that hangs for longer costs the lock, once.
func (r *runner) leavesMedium(ctx context.Context, f *api.Flow) bool {
	n := r.cfg.Store.View().Node(r.node)
	if !r.usesMedia() && !n.GetBoot().GetMedium() {
		return false
	}
	if !node.Verified(n) || r.isStopping() || r.begun != f.GetAttempt() || r.room() < leftRoom+r.effectLimit() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, leftLimit)
	defer cancel()
	if err := r.ejectBootMedia(ctx, position{flow: f}); err != nil {
		r.log.Warn("the boot medium is left in the drive", "err", err)
		r.event(f, "the boot medium is left in the drive: "+err.Error())
		return true
	}
	return false
}

// room is how long the lock and the node's state last, on the cluster clock.
func (r *runner) room() time.Duration {
	v := r.cfg.Store.View()
	l := v.Lock(r.node)
	ends := v.Node(r.node).GetStateDeadlineTick()
	if limit := l.GetHoldLimitMs(); limit > 0 && (ends == 0 || l.GetAcquiredTick()+limit < ends) {
		ends = l.GetAcquiredTick() + limit
	}
	if ends == 0 {
		return time.Hour
	}
	return time.Duration(int64(ends)-int64(v.Globals().GetTicks())) * time.Millisecond
}

// commitMedia commits what closes the intent of a change to the drive: another
// change follows within the same step.
func (r *runner) commitMedia(ctx context.Context, reason string) func([]*api.Op, error) error {
	return func(ops []*api.Op, err error) error {
		if err == nil && len(ops) > 0 {
			_, err = r.commit(ctx, reason, ops...)
		}
		return err
	}
}
