package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

// A port is never changed: it is removed and added again. Between the two it is
// missing, so
//   - one port is replaced at a time, and an interrupt comes after it;
//   - it comes back under its own UUID;
//   - whoever dies in between leaves a node without the port, which the next
//     apply of the file adds, since it still stands there;
//   - one that holds secrets is not replaced: nobody could put them back.

// portChange is what makes the ports of one node those of the file.
type portChange struct {
	add, drop []*api.Port
	replace   []replacement
}

type replacement struct{ was, is *api.Port }

// comparePorts finds which come, go, and differ.
func (c *change) comparePorts(stored []*api.Port) error {
	by := map[string]*api.Port{}
	for _, p := range stored {
		by[p.GetAddress()] = p
	}
	for _, p := range c.entry.ports {
		was := by[p.GetAddress()]
		delete(by, p.GetAddress())
		switch {
		case was == nil:
			c.note("port: %s added", portText(p))
			c.ports.add = append(c.ports.add, p)
		case !samePort(was, p):
			if secrets := maskedPaths(nil, portExtra(was)); len(secrets) > 0 {
				return errs.About(errs.Unsupported, "ports", "the port %s differs from the file (%s) and would have to be removed and added again, by which the secrets in its extra would be lost: %s. "+
					"Give in the file what the port has, or replace it yourself: `ironring port delete`, then `ironring port create` with --extra KEY=@FILE for each of them",
					p.GetAddress(), portDifference(was, p), strings.Join(secrets, ", "))
			}
			c.note("port: %s: removed and added again", portDifference(was, p))
			c.ports.replace = append(c.ports.replace, replacement{was, p})
		}
	}
	for _, mac := range slices.Sorted(maps.Keys(by)) {
		lost := ""
		if secrets := maskedPaths(nil, portExtra(by[mac])); len(secrets) > 0 {
			lost = ", with the secrets in its extra: " + strings.Join(secrets, ", ")
		}
		c.note("port: %s removed%s", portText(by[mac]), lost)
		c.ports.drop = append(c.ports.drop, by[mac])
	}
	return nil
}

// portDifference is what a port is and what it is to be.
func portDifference(was, is *api.Port) string {
	before, after := portText(was), portText(is)
	if x, y := portExtra(was), portExtra(is); !alike(x, y) {
		before, after = before+", extra "+shown(x), after+", extra "+shown(y)
	}
	return before + " -> " + after
}

// samePort reports whether a port is that of the file. Secrets of ports are for
// no file: they are left out, and stay.
func samePort(was, is *api.Port) bool {
	return alike(portExtra(was), portExtra(is)) && was.GetPxeEnabled() == is.GetPxeEnabled() && was.GetPhysicalNetwork() == is.GetPhysicalNetwork()
}

func portExtra(p *api.Port) map[string]any {
	v, _ := jsonValue(string(p.GetExtra()))
	extra, ok := v.(map[string]any)
	if !ok {
		return map[string]any{}
	}
	return extra
}

// maskedPaths are the places of the secrets in a stored value.
func maskedPaths(path []string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		var out []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, maskedPaths(append(slices.Clip(path), k), v[k])...)
		}
		return out
	default:
		if masked(v) {
			return []string{strings.Join(path, "/")}
		}
	}
	return nil
}

// carryOut changes the ports of a node.
func (c *portChange) carryOut(ctx context.Context, cl *client.Client, nodeID string) error {
	for _, r := range c.replace {
		if err := r.carryOut(ctx, cl, nodeID); err != nil {
			return err
		}
	}
	for _, p := range c.add {
		if _, err := cl.CreatePort(ctx, &api.CreatePortRequest{Node: nodeID, Port: p}); err != nil {
			return fmt.Errorf("port %s: %w", p.GetAddress(), err)
		}
	}
	for _, p := range c.drop {
		if _, err := cl.DeletePort(ctx, &api.DeletePortRequest{Port: p.GetId()}); err != nil {
			return fmt.Errorf("port %s: %w", p.GetAddress(), err)
		}
	}
	return nil
}

// replaceTime is how long a replacement that was begun may take although the
// command is to end.
const replaceTime = 30 * time.Second

func (r replacement) carryOut(ctx context.Context, cl *client.Client, nodeID string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("port %s was not replaced: %w", r.was.GetAddress(), err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replaceTime)
	defer cancel()
	if _, err := cl.DeletePort(ctx, &api.DeletePortRequest{Port: r.was.GetId()}); err != nil {
		return fmt.Errorf("port %s is to be removed and added again: %w", r.was.GetAddress(), err)
	}
	again := proto.CloneOf(r.is)
	again.Id = r.was.GetId()
	if _, err := cl.CreatePort(ctx, &api.CreatePortRequest{Node: nodeID, Port: again}); err != nil {
		return fmt.Errorf("port %s was removed, but not added again, and may be missing now; apply the file once more, which adds it: %w", r.was.GetAddress(), err)
	}
	return nil
}
