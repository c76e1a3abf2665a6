package ipmi_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
)

// A session that somebody else has is ended, once, and the password is in no
// argument.
func TestConsoleOfAnother(t *testing.T) {
	b := newBMC(t)
	b.set(func() { b.console = b.conn.LocalAddr() }) // nobody's any more
	ctx, cancel := context.WithCancel(timeout(t, time.Minute))
	defer cancel()
	err := driver(t, b.path).ReadConsole(ctx, b.target(), drivertest.NewGrant(time.Minute), cancel, io.Discard)
	wants(t, err, errs.Timeout, "given up")
	b.mu.Lock()
	defer b.mu.Unlock()
	var verbs []string
	for _, run := range b.runs {
		args := strings.Join(run.Argv, " ")
		verbs = append(verbs, run.Argv[len(run.Argv)-1])
		if strings.Contains(args, secret) || !strings.Contains(args, "-E ") || len(run.Env) != 4 {
			t.Errorf("arguments: %s", args)
		}
	}
	if got := strings.Join(verbs, " "); got != "activate deactivate activate" || b.evicted != 1 {
		t.Errorf("%s; %d sessions were ended", got, b.evicted)
	}
}

// What the BMC says about its console, or about the login.
func TestConsoleOutcomes(t *testing.T) {
	activate := func(err string) func(*fakeBMC) {
		return func(b *fakeBMC) { b.answers["sol activate"] = told{Err: err, Exit: 1} }
	}
	for name, test := range map[string]struct {
		prepare func(*fakeBMC)
		want    errs.Kind
		text    string
	}{
		"switched off": {activate("Info: SOL payload disabled\n"), errs.Unsupported, "switched off at the BMC"},
		"in clear only": {activate("Info: cannot activate SOL payload with encryption\n"),
			errs.Unsupported, "without encryption"},
		"always another's": {activate("Info: SOL payload already active on another session\n"), errs.Busy, "another session"},
		"ends by itself":   {func(b *fakeBMC) { b.answers["sol activate"] = told{} }, errs.Internal, "ended by itself"},
		"nobody there":     {func(b *fakeBMC) { b.conn.Close() }, errs.Unreachable, "nobody listens"},
		"refused password": {login("> RAKP 2 HMAC is invalid\n"), errs.Denied, "refuses the password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBMC(t)
			b.set(func() { test.prepare(b) })
			err := driver(t, b.path).ReadConsole(timeout(t, time.Minute), b.target(), drivertest.NewGrant(time.Minute), func() { t.Error("opened") }, io.Discard)
			wants(t, err, test.want, test.text)
		})
	}
}

// A session that the BMC ends is an error that may pass.
func TestConsoleEndsAtBMC(t *testing.T) {
	b := newBMC(t)
	err := driver(t, b.path).ReadConsole(timeout(t, time.Minute), b.target(), drivertest.NewGrant(time.Minute), func() { b.print(endConsole) }, io.Discard)
	wants(t, err, errs.Unreachable, "has ended the console's session")
}
