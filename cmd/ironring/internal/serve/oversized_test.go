package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// Whatever is too large, too deep or too many is refused at once, with a short
// error of a kind that says not to try again, and the peer goes on.
func TestOversized(t *testing.T) {
	cfg := testConfig(t, 5)
	c, stop := start(t, Options{Config: cfg, Init: true})
	defer stop()
	eventually(t, "the peer", members(c, 1))
	cc, err := grpc.NewClient("passthrough:///"+cfg.Socket, append(rpc.DialOptions(),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30)), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	nodes := api.NewIronringClient(cc)
	huge := strings.Repeat("x", 10<<20)
	deep := []byte(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000))
	var many strings.Builder
	many.WriteString(`{"k":1`)
	set := map[string]string{}
	for i := range 100_000 {
		fmt.Fprintf(&many, `,"key%d":1`, i)
		set[fmt.Sprintf("extra/k%d", i)] = "1"
	}
	many.WriteString("}")
	node := func(change func(n *api.Node)) func(context.Context) error {
		n := &api.Node{Name: "big", Driver: "fake"}
		change(n)
		return func(ctx context.Context) error {
			_, err := nodes.CreateNode(ctx, &api.CreateNodeRequest{Node: n})
			return err
		}
	}
	if _, err := c.CreateNode(t.Context(), &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}}); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"message":     node(func(n *api.Node) { n.Extra = []byte(`{"x":"` + strings.Repeat("x", 40<<20) + `"}`) }),
		"name":        node(func(n *api.Node) { n.Name = huge }),
		"driver":      node(func(n *api.Node) { n.Driver = huge }),
		"description": node(func(n *api.Node) { n.Description = huge }),
		"group":       node(func(n *api.Node) { n.ConductorGroup = huge }),
		"deep":        node(func(n *api.Node) { n.Extra = deep }),
		"deep info":   node(func(n *api.Node) { n.DriverInfo = deep }),
		"many keys":   node(func(n *api.Node) { n.Properties = []byte(many.String()) }),
		"set": func(ctx context.Context) error {
			_, err := nodes.UpdateNode(ctx, &api.UpdateNodeRequest{Node: "n1", Set: set})
			return err
		},
		"set deep": func(ctx context.Context) error {
			_, err := nodes.UpdateNode(ctx, &api.UpdateNodeRequest{Node: "n1", Set: map[string]string{"extra/x": string(deep)}})
			return err
		},
		"long path": func(ctx context.Context) error {
			_, err := nodes.UpdateNode(ctx, &api.UpdateNodeRequest{Node: "n1", Set: map[string]string{"extra/" + strings.Repeat("a/", 1<<20): "1"}})
			return err
		},
		"reference": func(ctx context.Context) error {
			_, err := nodes.GetNode(ctx, &api.GetNodeRequest{Node: huge})
			return err
		},
		"request id": func(ctx context.Context) error {
			_, err := nodes.CreateNode(ctx, &api.CreateNodeRequest{Node: &api.Node{Name: "big", Driver: "fake"}, RequestId: huge})
			return err
		},
		"member": func(ctx context.Context) error {
			_, err := nodes.Leave(ctx, &api.LeaveRequest{Member: huge})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := call(ctx)
			if err == nil {
				t.Fatal("it was accepted")
			}
			switch errs.KindOf(err) {
			case errs.Invalid, errs.NotFound:
			default:
				t.Errorf("%v: %.300s", errs.KindOf(err), err)
			}
			if len(err.Error()) > 4096 || len(errs.SubjectOf(err)) > 4096 {
				t.Errorf("an error of %d bytes about %d: %.100s", len(err.Error()), len(errs.SubjectOf(err)), err)
			}
		})
	}
	if reply, err := c.GetNode(t.Context(), &api.GetNodeRequest{Node: "n1"}); err != nil || len(reply.GetNode().GetExtra()) > 2 {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := c.GetNode(t.Context(), &api.GetNodeRequest{Node: "big"}); !errors.Is(err, errs.NotFound) {
		t.Errorf("a node that was refused: %v", err)
	}
}
