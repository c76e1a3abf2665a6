package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Evidence on the serial console: a line that the deployed system prints.
//
// The console is read from before the power-on into the deployed system until
// the deploy ends, under the node's lock: a BMC has one session. Whoever takes
// over opens it anew. What was printed while nobody read is lost, so a pattern
// should be of something that comes again, such as a login prompt; a wait in
// vain ends with the step's time and says when the console was read.

const (
	maxPattern     = 200              // bytes of a pattern
	maxPatternSize = 2000             // as patternSize counts
	consoleFirst   = 15 * time.Second // that a power-on waits for the console
	consoleAgain   = 5 * time.Second  // before a session that has ended is opened anew
	consoleLook    = 500 * time.Millisecond
	consoleSilence = 2 * time.Minute // after which a session may be another's without the BMC having said so
)

// parsePattern checks what is to be found in a line of the console.
func parsePattern(text string) (*regexp.Regexp, error) {
	bad := func(why string) error {
		return errs.About(errs.Invalid, "evidence", "evidence console:REGEXP: %s", why)
	}
	switch {
	case text == "":
		return nil, bad("the pattern is missing")
	case len(text) > maxPattern:
		return nil, bad(fmt.Sprintf("the pattern has more than %d bytes", maxPattern))
	case strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text):
		return nil, bad("the pattern is not one line of UTF-8")
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, bad(err.Error())
	}
	if patternSize(tree) > maxPatternSize {
		return nil, bad("the pattern repeats too much")
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, bad(err.Error())
	}
	if re.MatchString("") {
		return nil, bad(fmt.Sprintf("%q is found in an empty line already", text))
	}
	return re, nil
}

// patternSize is about how many states a pattern has once its counted
// repetitions are written out: a line is looked at in that time per byte.
func patternSize(re *syntax.Regexp) int {
	size := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		size += patternSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(1, re.Min, re.Max)
	}
	return min(size, maxPatternSize+1)
}

// WatchesConsole says whether a deploy waits for a line on the serial console.
func WatchesConsole(a DeployArgs) bool { return strings.HasPrefix(a.Evidence, "console:") }

// consoleWatch reads a node's console in a goroutine of its own.
type consoleWatch struct {
	finder *lineFinder
	began  time.Time
	opened chan struct{} // closed when the first session is open
	failed chan error    // one error that will not pass
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	sessions int       // guarded by mu
	until    time.Time // guarded by mu; the end of the last session, zero while it is open
	last     error     // guarded by mu; why the console could not be read
}

// watchBeforePowerOn opens the console before the power-on that boots the
// deployed system, where it is to be seen there. A console that does not open
// keeps no machine from being switched on: the step that waits tells.
func (r *runner) watchBeforePowerOn(ctx context.Context, p position) error {
	next := int(p.flow.GetCursor()) + 1
	if steps := p.flow.GetSteps(); next >= len(steps) || node.IDOf(steps[next]) != node.StepEvidence {
		return nil
	}
	args, err := r.deployArgs(p.flow)
	if err != nil {
		return err
	}
	policy, err := args.evidence(r.cfg.Store.View().Node(r.node))
	if err != nil || policy.Console == "" {
		return err
	}
	w, err := r.watchConsole(policy)
	if err != nil {
		return err
	}
	limit := time.NewTimer(consoleFirst)
	defer limit.Stop()
	select {
	case <-w.opened:
		r.event(p.flow, "the serial console is read, for evidence")
	case <-w.done:
	case <-limit.C:
	case <-ctx.Done():
	}
	return nil
}

// watchConsole is the watch of this runner; it is begun if need be.
func (r *runner) watchConsole(policy EvidencePolicy) (*consoleWatch, error) {
	if r.console != nil {
		return r.console, nil
	}
	pattern, err := parsePattern(policy.Console)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.hard)
	w := &consoleWatch{
		finder: newLineFinder(pattern), began: r.cfg.Clock.Now(), cancel: cancel,
		opened: make(chan struct{}), failed: make(chan error, 1), done: make(chan struct{}),
	}
	r.console = w
	go func() { defer close(w.done); w.run(ctx, r) }()
	return w, nil
}

// stopConsole gives the console back, before the lock is.
func (r *runner) stopConsole() {
	if r.console == nil {
		return
	}
	r.console.cancel()
	<-r.console.done
	r.console = nil
}

// run reads one session after another until ctx ends or there is no hope.
func (w *consoleWatch) run(ctx context.Context, r *runner) {
	for {
		err := w.session(ctx, r)
		w.mu.Lock()
		w.until, w.last = r.cfg.Clock.Now(), err
		w.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		for _, k := range []errs.Kind{errs.Unsupported, errs.Denied, errs.Fenced, errs.Invalid} {
			if errors.Is(err, k) {
				w.failed <- err
				return
			}
		}
		_ = clock.Pause(ctx, consoleAgain)
	}
}

// session reads one session until it ends or is silent for so long that it may
// have been taken from us.
func (w *consoleWatch) session(ctx context.Context, r *runner) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(consoleSilence, cancel)
	defer silence.Stop()
	look, stop := time.NewTicker(consoleLook), make(chan struct{})
	defer look.Stop()
	var looker sync.WaitGroup
	looker.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-look.C:
				w.finder.look()
			}
		}
	})
	defer looker.Wait()
	defer close(stop)
	return r.cfg.BMC.ReadConsole(ctx, r.node, r.grant(), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.sessions++; w.sessions == 1 {
			close(w.opened)
		}
		w.until = time.Time{}
	}, hearing{w.finder, func() { silence.Reset(consoleSilence) }})
}

// hearing is a writer that notes that something was written.
type hearing struct {
	io.Writer
	heard func()
}

// Write implements io.Writer.
func (h hearing) Write(p []byte) (int, error) {
	h.heard()
	return h.Writer.Write(p)
}

// waitForConsole waits until a line on the console has the pattern.
func (r *runner) waitForConsole(ctx context.Context, p position, policy EvidencePolicy) (outcome, error) {
	w, err := r.watchConsole(policy)
	if err != nil {
		return outcome{}, err
	}
	tick := time.NewTicker(evidenceEvery)
	defer tick.Stop()
	for {
		var failed error
		select {
		case <-w.finder.hit:
		case failed = <-w.failed:
			r.stopConsole()
		case <-ctx.Done():
			failed = w.unseen(policy, r.cfg.Clock.Now(), context.Cause(ctx))
		case <-tick.C:
			r.gate.Progress(r.token)
		}
		// A line that was printed counts, whatever became of the console after it.
		switch line, found := w.finder.sighted(); {
		case found:
			r.stopConsole()
			return r.consoleSeen(p, policy, line), nil
		case failed != nil:
			return outcome{}, failed
		}
	}
}

// consoleSeen is the outcome once a line was seen.
func (r *runner) consoleSeen(p position, policy EvidencePolicy, line string) outcome {
	e := r.evidence(p.flow)
	e.Seen, e.SeenMs, e.Source = policy.String(), r.cfg.Clock.Now().UnixMilli(), fmt.Sprintf("the console's line %q", line)
	return outcome{
		result: map[string]any{"seen": e.GetSeen(), "source": e.GetSource()},
		ops:    []*api.Op{r.write(p.flow, []string{"evidence"}, &api.Node{Evidence: e})},
	}
}

// unseen says what was watched, and when.
func (w *consoleWatch) unseen(policy EvidencePolicy, now time.Time, cause error) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	w.mu.Lock()
	defer w.mu.Unlock()
	span := "from " + at(w.began) + " to " + at(now)
	if w.sessions == 0 {
		if w.last == nil {
			return fmt.Errorf("the serial console did not open %s: %w", span, cause)
		}
		return fmt.Errorf("the serial console could not be read %s (last: %w): %w", span, w.last, cause)
	}
	if w.sessions > 1 {
		span += fmt.Sprintf(" in %d sessions", w.sessions)
	}
	if !w.until.IsZero() {
		span += ", the last of which ended at " + at(w.until)
	}
	return fmt.Errorf("no line with %q was seen on the serial console, which was read %s (%d bytes); the image is on the disk and the machine was switched on: look at its console: %w",
		policy.Console, span, w.finder.size(), cause)
}
