package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// command is one row of the table of what the agent can do.
type command struct {
	// alone: it changes the machine, so no other such command runs beside it.
	alone bool
	run   func(ctx context.Context, t *task) (any, error)
	// last is done after all else has ended, once the result has been told.
	last func() error
}

// task is one command at work.
type task struct {
	args     []byte
	log      *slog.Logger
	progress func(done, total uint64, msg string)
}

// decode reads the arguments into v. Unknown fields are from a newer holder
// and let pass.
func (t *task) decode(v any) error {
	if err := json.Unmarshal(t.args, v); err != nil {
		return errs.New(errs.Invalid, "arguments: %w", err)
	}
	return nil
}

// commands is the table.
func (a *agent) commands() map[string]command {
	nothing := func(context.Context, *task) (any, error) { return struct{}{}, nil }
	return map[string]command{
		agentproto.CmdInventory:     {run: a.inventory},
		agentproto.CmdWriteImage:    {run: a.writeImage, alone: true},
		agentproto.CmdEraseMetadata: {run: a.eraseMetadata, alone: true},
		agentproto.CmdCheckDrive:    {run: a.checkDrive},
		agentproto.CmdConfigDrive:   {run: a.configDrive, alone: true},
		agentproto.CmdBootEntry:     {run: a.bootEntry, alone: true},
		agentproto.CmdReboot:        {run: nothing, alone: true, last: a.hw.Reboot},
		agentproto.CmdPowerOff:      {run: nothing, alone: true, last: a.hw.PowerOff},
	}
}

func (a *agent) inventory(ctx context.Context, _ *task) (any, error) {
	return a.hw.Inventory(ctx)
}

// start runs c unless it is known already. The error is for a command that
// could not even be noted; how a noted one ends is in the book.
func (a *agent) start(work context.Context, c *api.AgentCommand) error {
	ctx, cancel := context.WithCancel(work)
	began, err := a.book.begin(c.CmdId, c.Name, cancel)
	if err != nil || !began {
		cancel()
		return err
	}
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		defer cancel()
		a.carryOut(ctx, work, c)
	}()
	return nil
}

// carryOut performs a noted command and notes its end. When the agent itself
// stops, nothing is noted: the file goes on saying that the command runs, and
// the next agent reports it as interrupted.
func (a *agent) carryOut(ctx, work context.Context, c *api.AgentCommand) {
	t := &task{
		args: c.Args, log: a.log.With(cmdKey, c.CmdId),
		progress: func(done, total uint64, msg string) { a.book.progress(c.CmdId, done, total, msg) },
	}
	cmd, known := a.table[c.Name]
	began := time.Now()
	t.log.Info("command started", "name", c.Name)
	var result any
	err := errs.New(errs.Unsupported, "this agent has no command %q", c.Name)
	if known {
		var release func()
		if result, release, err = a.perform(ctx, cmd, t); release != nil && (err != nil || cmd.last == nil) {
			defer release()
		}
	}
	if err != nil && work.Err() != nil {
		return
	}
	if err != nil {
		t.log.Error("command failed", "name", c.Name, "err", err)
	} else {
		t.log.Info("command done", "name", c.Name, "seconds", time.Since(began).Round(time.Millisecond).Seconds())
	}
	told, serr := a.book.finish(c.CmdId, result, err, ctx.Err() != nil)
	if serr != nil {
		t.log.Error("the result is not on file", "err", serr)
	}
	if err != nil || cmd.last == nil {
		return
	}
	wait := time.NewTimer(5 * time.Second)
	defer wait.Stop()
	select {
	case <-told:
	case <-wait.C:
	case <-work.Done():
	}
	select {
	case a.last <- lastAct{what: c.Name, do: cmd.last}:
	default: // one is enough
	}
}

// perform runs one command, alone if it must be, and turns a panic into an
// error: a defect in one command must not take the conversation away.
// release, if not nil, gives the machine to the next command.
func (a *agent) perform(ctx context.Context, cmd command, t *task) (result any, release func(), err error) {
	if cmd.alone {
		select {
		case a.machine <- struct{}{}:
		default:
			t.progress(0, 0, "waits for another command to end")
			select {
			case a.machine <- struct{}{}:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		release = func() { <-a.machine }
	}
	defer func() {
		if r := recover(); r != nil {
			t.log.Error("panic in a command", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = errs.New(errs.Internal, "panic: %v", r)
		}
	}()
	result, err = cmd.run(ctx, t)
	return result, release, err
}
