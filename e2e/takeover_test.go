//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

// The owner of a deployment is killed while the image is being written. Another
// peer finishes it, and the image is written once.

func TestOwnerKilled(t *testing.T) {
	runCase(t, "owner-killed", func(ctx context.Context, k *kase) error { return k.killOwner(ctx, false) })
}

// The killed peer is also the one that holds the agent's stream.
func TestOwnerWithStreamKilled(t *testing.T) {
	runCase(t, "owner-with-stream-killed", func(ctx context.Context, k *kase) error { return k.killOwner(ctx, true) })
}

func (k *kase) killOwner(ctx context.Context, withStream bool) error {
	vm, bmc, err := k.machine(ctx, 1, nil, harness.BMCSpec{})
	if err != nil {
		return err
	}
	if err := k.available(ctx, "n1", vm, bmc); err != nil {
		return err
	}
	img, url, err := image(k.name, 50*time.Second)
	if err != nil {
		return err
	}
	before, err := vm.Written()
	if err != nil {
		return err
	}
	e, err := k.Explain(ctx, "n1")
	if err != nil {
		return err
	}
	owner := k.Peer(e.Node.Assigned)
	if owner == nil {
		return fmt.Errorf("n1 has the owner %q", e.Node.Assigned)
	}
	// The machine, and so the agent, finds only peers that are plugged in.
	for _, p := range k.Peers {
		if (p == owner) != withStream {
			if err := p.Unplug(ctx, true); err != nil {
				return err
			}
		}
	}
	mark := vm.Console.Mark()
	if err := k.CLI(ctx, nil, "node", "deploy", "n1", "--image", url, "--checksum", "sha256:"+img.SHA256); err != nil {
		return err
	}
	if err := k.served(ctx, img, 20, 5*time.Minute); err != nil {
		return err
	}
	for _, p := range k.Peers {
		if err := p.Unplug(ctx, false); err != nil {
			return err
		}
	}
	if e, err = k.Explain(ctx, "n1"); err != nil {
		return err
	}
	lab.Logf("n1: holder %s, agent's stream at %s, %s", e.Holder(), e.Live.AgentPeer, e.Summary)
	if e.Holder() != owner.ID || (e.Live.AgentPeer == owner.ID) != withStream {
		return fmt.Errorf("holder %s and stream %s are not what the case needs (owner %s)", e.Holder(), e.Live.AgentPeer, owner.ID)
	}
	if err := k.served(ctx, img, 30, time.Minute); err != nil {
		return err
	}
	var st harness.Status
	if err := k.CLI(ctx, &st, "cluster", "status"); err != nil {
		return err
	}
	killed := time.Now()
	lab.Logf("n1: the owner %s dies now; the leader is %s", owner.ID, st.Leader)
	owner.Kill()
	if err := k.takenOver(ctx, "n1", owner, killed); err != nil {
		return err
	}
	end, err := k.WaitState(ctx, "n1", "ACTIVE", lab.Limit(6*time.Minute))
	if err != nil {
		return err
	}
	if err := k.boots(ctx, vm, mark, img); err != nil {
		return err
	}
	write := end.Flow.Find("deploy.write_image")
	if end.Flow.Takeovers < 1 || write == nil {
		return fmt.Errorf("the flow does not tell of the takeover: %+v", end.Flow)
	}
	var result bytes.Buffer
	if err := json.Compact(&result, write.Result); err != nil {
		return err
	}
	lab.Logf("n1: takeovers %d, write_image started %d times: %s", end.Flow.Takeovers, write.Starts, &result)
	return writtenOnce(vm, before, img)
}

// served waits until percent of an image was fetched. Past 60 percent it is too
// late for what the case wants to see.
func (k *kase) served(ctx context.Context, img *harness.Image, percent int64, limit time.Duration) error {
	srv, err := images()
	if err != nil {
		return err
	}
	return harness.Poll(ctx, fmt.Sprintf("%d %% of the image %s", percent, img.Marker), lab.Limit(limit), func() (bool, error) {
		if err := k.silent(); err != nil {
			return false, harness.Final(err)
		}
		done := srv.Bytes(img) * 100 / img.Size
		if done > 60 {
			return false, harness.Final(fmt.Errorf("%d %% was fetched already", done))
		}
		return done >= percent, nil
	})
}

// takenOver waits until another peer works on a node.
func (k *kase) takenOver(ctx context.Context, node string, from *harness.Peer, since time.Time) error {
	return harness.Poll(ctx, "takeover of "+node, lab.Limit(90*time.Second), func() (bool, error) {
		e, err := k.Explain(ctx, node)
		if err != nil {
			return false, err
		}
		if h := e.Holder(); h == "" || h == from.ID {
			return false, nil
		}
		lab.Logf("%s: taken over by %s %.1f s after the kill", node, e.Holder(), time.Since(since).Seconds())
		return true, nil
	})
}
