package drivertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// Fixture is a BMC to test against, in a state of its own for each test.
type Fixture struct {
	Driver drivers.Driver
	Target drivers.Target
	// WrongPassword is Target's driver_info with a password that the BMC
	// refuses.
	WrongPassword drivers.Info
	// Secrets are texts that no error may hold.
	Secrets []string
	// Changes counts the requests to change the machine that the BMC got.
	Changes func() int
	// Silence makes the BMC stop answering, without closing anything.
	Silence func()
	// Console makes the machine print a text on its serial console; nil where
	// the stand-in has none.
	Console func(text string)
	// Settle is how long the BMC takes for a change at most; 0 is 5 s.
	Settle time.Duration
	// Patience is how much longer than its context a call may take; 0 is 1 s.
	Patience time.Duration
}

// Run runs the conformance tests; fixture is called once for each.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	run(t, fixture, append(basic(), adverse()...))
}

// RunBasic runs those of them that need no fault of the BMC: that its verbs do
// what they say.
func RunBasic(t *testing.T, fixture func(t *testing.T) Fixture) { run(t, fixture, basic()) }

type conformance struct {
	name string
	run  func(*testing.T, *bench)
}

func basic() []conformance {
	return []conformance{
		{"Describe", testDescribe},
		{"Capabilities", testCapabilities},
		{"Power", testPower},
		{"SoftOff", testSoftOff},
		{"OneChange", testOneChange},
		{"NoEdges", testNoEdges},
		{"BootDevice", testBootDevice},
		{"Identify", testIdentify},
		{"BootMode", testBootMode},
		{"SecureBoot", testSecureBoot},
		{"Media", testMedia},
		{"Indicator", testIndicator},
		{"NMI", testNMI},
		{"Events", testEvents},
		{"Sensors", testSensors},
		{"Items", testItems},
		{"Console", testConsole},
	}
}

func adverse() []conformance {
	return []conformance{
		{"NoGrant", testNoGrant},
		{"Cancelled", testCancelled},
		{"WrongPassword", testWrongPassword},
		{"Silence", testSilence},
		{"GrantEnds", testGrantEnds},
		{"GrantRenewed", testGrantRenewed},
	}
}

func run(t *testing.T, fixture func(t *testing.T) Fixture, tests []conformance) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := fixture(t)
			if f.Settle == 0 {
				f.Settle = 5 * time.Second
			}
			if f.Patience == 0 {
				f.Patience = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			test.run(t, &bench{Fixture: f, ctx: ctx})
		})
	}
}

// bench is a fixture with the verbs of the tests.
type bench struct {
	Fixture
	ctx context.Context // of one test: a bench does not outlive it
}

// fine fails the test on an error.
func (b *bench) fine(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v (%v)", what, err, errs.KindOf(err))
	}
}

// kind fails the test unless err is of one of the kinds and holds no secret.
func (b *bench) kind(t *testing.T, what string, err error, kinds ...errs.Kind) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error, want one of %v", what, kinds)
	}
	for _, s := range b.Secrets {
		if strings.Contains(err.Error(), s) {
			t.Errorf("%s: the error holds a secret", what)
		}
	}
	for _, k := range kinds {
		if errors.Is(err, k) && errs.KindOf(err) == k {
			return
		}
	}
	t.Fatalf("%s: %v is of kind %v, want one of %v", what, err, errs.KindOf(err), kinds)
}

func (b *bench) power(t *testing.T, action api.PowerAction) {
	t.Helper()
	err := b.Driver.(drivers.PowerSetter).SetPower(b.ctx, b.Target, NewGrant(time.Minute), action)
	b.fine(t, action.String(), err)
}

// await polls until the power state is as wanted.
func (b *bench) await(t *testing.T, want api.PowerState) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.Now().Add(b.Settle)
	for {
		got, err := b.Driver.(drivers.PowerReader).PowerState(b.ctx, b.Target)
		b.fine(t, "power state", err)
		if got == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("power state is %v after %v, want %v", got, b.Settle, want)
		}
		<-tick.C
	}
}

// within fails the test unless do ends in time.
func (b *bench) within(t *testing.T, d time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > d+b.Patience {
		t.Errorf("took %v, want %v at most", took, d)
	}
}

// unchanged fails the test if the BMC was asked for a change.
func (b *bench) unchanged(t *testing.T, do func()) {
	t.Helper()
	before := b.Changes()
	do()
	if n := b.Changes() - before; n != 0 {
		t.Errorf("the BMC was asked for %d changes, want none", n)
	}
}
