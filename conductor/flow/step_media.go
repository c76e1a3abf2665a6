package flow

import (
	"context"
	"errors"
	"strings"

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
