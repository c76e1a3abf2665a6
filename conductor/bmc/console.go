package bmc

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	nodes "github.com/ironring/ironring/node"
)

// ReadConsole reads the serial console as drivers.ConsoleReader says, until ctx
// or the grant ends. That it opened is a contact with the BMC; why it ended
// afterwards is for the caller to judge.
func (a *Access) ReadConsole(ctx context.Context, nodeID string, g drivers.Grant, opened func(), w io.Writer) error {
	const what = "read the console"
	node := a.cfg.Store.View().Node(nodeID)
	if node == nil {
		return errs.About(errs.NotFound, nodeID, "no node %s", nodeID)
	}
	if err := a.HasConsole(node); err != nil {
		return err
	}
	if err := verified(node, what); err != nil {
		return err // it would be taken from whoever reads it
	}
	turn, err := a.enter(ctx, node)
	if err != nil {
		return err
	}
	leave := sync.OnceFunc(turn) // others may call once we have logged in
	defer leave()
	driver, target, err := a.target(node)
	if err != nil {
		return err
	}
	d, ok := driver.(drivers.ConsoleReader)
	if !ok {
		return errs.About(errs.Unsupported, nodeID, "driver %s cannot %s", driver.Name(), what)
	}
	open := false
	err = d.ReadConsole(ctx, target, g, func() {
		open = true
		a.note(ctx, node, what, nil)
		leave()
		opened()
	}, w)
	if !open {
		a.note(ctx, node, what, err)
	}
	return fmt.Errorf("%s of node %s: %w", what, nodes.Label(node), err)
}

// HasConsole is errs.Unsupported for a node whose driver reads no console.
func (a *Access) HasConsole(node *api.Node) error { return HasConsole(a.cfg.Registry, node) }

// HasConsole is errs.Unsupported for a node whose driver reads no console.
func HasConsole(known *drivers.Registry, node *api.Node) error {
	d, err := known.Get(node.GetDriver())
	if err != nil {
		return err
	}
	if !d.Capabilities().Console {
		return errs.About(errs.Unsupported, "evidence", "driver %s reads no serial console: only a node of driver ipmi can be watched on it", d.Name())
	}
	return nil
}
