// Package bmc is the conductor's only way to a BMC: it finds the node's
// driver, unseals its driver_info, bounds each call, notes contacts, and parks
// a BMC that refuses our credentials.
//
// Rules: no call to a parked BMC until driver or driver_info change; at most two
// failed logins before it is parked, also while the record of them cannot be
// written (park.go). A call that changes a machine needs a grant, which the
// driver checks again before each packet.
package bmc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	nodes "github.com/ironring/ironring/node"
)

// Keyring unseals driver_info.
type Keyring interface {
	OpenDoc(aad string, doc []byte) ([]byte, error)
}

// Proposer commits commands.
type Proposer interface {
	Propose(ctx context.Context, cmd *api.Command) (*api.Result, error)
}

// Config of an Access.
type Config struct {
	Member   string
	Registry *drivers.Registry
	Keyring  Keyring
	Store    *fsm.Store
	Proposer Proposer
	Journal  *journal.Journal
	Clock    clock.Clock
	Logger   *slog.Logger
	// Contact hears the outcome of each call that was not cut off by its
	// caller; it must not block. May be nil.
	Contact func(node *api.Node, err error)
	// ReadTimeout is the longest that a call which only reads may take, all of
	// its requests together; 0: 45 s.
	ReadTimeout time.Duration
}

// Longest that one call may take; BMCs have been seen to need most of a minute.
const (
	readTimeout   = 45 * time.Second // unless Config says otherwise
	changeTimeout = 60 * time.Second
)

// Access calls BMCs. Safe for concurrent use.
type Access struct {
	cfg Config

	mu     sync.Mutex
	logins map[string]*logins // guarded by mu; by node, those that were refused
}

// New makes an Access.
func New(cfg Config) *Access {
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = readTimeout
	}
	return &Access{cfg: cfg, logins: map[string]*logins{}}
}

// AAD is what seals a node's driver_info to the node.
func AAD(node string) string { return seal.NodeAAD(node, "driver_info") }

// Power reads the power state.
func (a *Access) Power(ctx context.Context, node string) (state api.PowerState, err error) {
	err = call(a, ctx, node, "read power", a.cfg.ReadTimeout, func(ctx context.Context, d drivers.PowerReader, t drivers.Target) error {
		state, err = d.PowerState(ctx, t)
		return err
	})
	return state, err
}

// SetPower asks for on, off or soft off.
func (a *Access) SetPower(ctx context.Context, node string, g drivers.Grant, action api.PowerAction) error {
	return change(a, ctx, node, "set power", func(ctx context.Context, d drivers.PowerSetter, t drivers.Target) error {
		return d.SetPower(ctx, t, g, action)
	})
}

// BootDevice reads the boot device; errs.Unsupported where it cannot be read.
func (a *Access) BootDevice(ctx context.Context, node string) (dev api.BootDevice, err error) {
	err = call(a, ctx, node, "read boot device", a.cfg.ReadTimeout, func(ctx context.Context, d drivers.BootDeviceReader, t drivers.Target) error {
		dev, err = d.BootDevice(ctx, t)
		return err
	})
	return dev, err
}

// SetBootDevice chooses the boot device of the boots to come.
func (a *Access) SetBootDevice(ctx context.Context, node string, g drivers.Grant, dev api.BootDevice, opts drivers.BootOptions) error {
	return change(a, ctx, node, "set boot device", func(ctx context.Context, d drivers.BootDeviceSetter, t drivers.Target) error {
		return d.SetBootDevice(ctx, t, g, dev, opts)
	})
}

// Identify asks the BMC who it is and which machine it belongs to. The facts say
// which driver_info it was asked with.
func (a *Access) Identify(ctx context.Context, node string) (facts *api.BmcFacts, err error) {
	n, err := a.node(node)
	if err != nil {
		return nil, err
	}
	err = callOn(a, ctx, n, "identify", a.cfg.ReadTimeout, func(ctx context.Context, d drivers.Identifier, t drivers.Target) error {
		facts, err = d.Identify(ctx, t)
		return err
	})
	if err == nil {
		facts.ReadMs, facts.DriverRev = a.cfg.Clock.Now().UnixMilli(), n.GetDriverRev()
	}
	return facts, err
}

func (a *Access) node(id string) (*api.Node, error) {
	n := a.cfg.Store.View().Node(id)
	if n == nil {
		return nil, errs.About(errs.NotFound, id, "no node %s", id)
	}
	return n, nil
}

// call is callOn with the record that the node has now, for what changes
// nothing.
func call[D any](a *Access, ctx context.Context, nodeID, what string, limit time.Duration, do func(context.Context, D, drivers.Target) error) error {
	node, err := a.node(nodeID)
	if err != nil {
		return err
	}
	return callOn(a, ctx, node, what, limit, do)
}

// change is call for what changes the machine. It is refused where the record
// that driver_info is taken from does not know its BMC: the caller should have
// asked before who it is.
func change[D any](a *Access, ctx context.Context, nodeID, what string, do func(context.Context, D, drivers.Target) error) error {
	node, err := a.node(nodeID)
	if err != nil {
		return err
	}
	if err := verified(node, what); err != nil {
		return err
	}
	return callOn(a, ctx, node, what, changeTimeout, do)
}

// verified refuses a node of which is not known whose BMC its driver_info leads
// to.
func verified(node *api.Node, what string) error {
	if nodes.Verified(node) {
		return nil
	}
	return errs.About(errs.Denied, node.GetId(), "%s of node %s: its BMC is not verified with the driver and driver_info that it has now; any work there asks it first", what, nodes.Label(node))
}

// callOn finds the capability D of the node's driver and calls it once.
func callOn[D any](a *Access, ctx context.Context, node *api.Node, what string, limit time.Duration, do func(context.Context, D, drivers.Target) error) error {
	nodeID := node.GetId()
	leave, err := a.enter(ctx, node)
	if err != nil {
		return err
	}
	defer leave()
	driver, target, err := a.target(node)
	if err != nil {
		return err
	}
	d, ok := driver.(D)
	if !ok {
		return errs.About(errs.Unsupported, nodeID, "driver %s cannot %s", driver.Name(), what)
	}
	cctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = do(cctx, d, target)
	a.note(ctx, node, what, err)
	if err != nil {
		return fmt.Errorf("%s of node %s: %w", what, nodes.Label(node), err)
	}
	return nil
}

// target unseals driver_info: it stays in memory for one call.
func (a *Access) target(node *api.Node) (drivers.Driver, drivers.Target, error) {
	driver, err := a.cfg.Registry.Get(node.GetDriver())
	if err != nil {
		return nil, drivers.Target{}, err
	}
	doc, err := a.cfg.Keyring.OpenDoc(AAD(node.GetId()), node.GetDriverInfo())
	if err != nil {
		return nil, drivers.Target{}, fmt.Errorf("driver_info of node %s: %w", nodes.Label(node), err)
	}
	info := drivers.Info{}
	if len(doc) > 0 {
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.UseNumber()
		if err := dec.Decode(&info); err != nil {
			return nil, drivers.Target{}, errs.New(errs.Invalid, "driver_info of node %s is not a JSON object", nodes.Label(node))
		}
	}
	return driver, drivers.Target{NodeID: node.GetId(), Driver: node.GetDriver(), Info: info, Trust: trust{a, node.GetId()}}, nil
}
