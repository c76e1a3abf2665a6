package sources

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/errs"
)

// at is limits under a clock that the test moves.
type at struct {
	*Limits
	now time.Duration
}

func newAt(cfg Config) *at {
	a := &at{now: time.Hour}
	cfg.Passed = func() time.Duration { return a.now }
	a.Limits = New(cfg)
	return a
}

// calls is how many of a host's calls are allowed.
func (a *at) calls(t rapid.TB, host netip.Addr, n int) (ok int) {
	for range n {
		switch err := a.Allow(host); {
		case err == nil:
			ok++
		case !errors.Is(err, errs.Busy):
			t.Fatal(err)
		}
	}
	return ok
}

func host(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func TestAllow(t *testing.T) {
	a := newAt(Config{Calls: "calls", Host: Rate{20, 40}, All: Rate{100, 200}})
	one := netip.MustParseAddr("192.0.2.1")
	if n := a.calls(t, one, 1000); n != 40 {
		t.Errorf("%d at once from one host", n)
	}
	if n := a.calls(t, netip.MustParseAddr("::ffff:192.0.2.1"), 1); n != 0 {
		t.Error("the same host in other words is another one")
	}
	if n := a.calls(t, netip.MustParseAddr("2001:db8::1"), 1); n != 1 {
		t.Error("one host takes from another")
	}
	a.now += time.Second
	if n := a.calls(t, one, 1000); n != 20 {
		t.Errorf("%d in a second from one host", n)
	}
	if n := a.calls(t, netip.Addr{}, 1000); n != 40 {
		t.Errorf("%d at once from a host without an address", n)
	}
	a.now += time.Hour
	all := 0
	for i := range uint32(3 * counters) {
		all += a.calls(t, host(i), 1)
	}
	if all != 200 {
		t.Errorf("%d at once from all", all)
	}
	a.now += time.Second
	if n := a.calls(t, one, 1000); n != 40 {
		t.Errorf("%d after an hour of silence", n)
	}
}

// TestSources: memory is fixed and what a host has used up stays used up, in
// whose names ever others ask.
func TestSources(t *testing.T) {
	a := newAt(Config{Host: Rate{5, 100}})
	if size := unsafe.Sizeof(*a.Limits); size > 80<<10 {
		t.Errorf("%d bytes", size)
	}
	greedy := host(1)
	a.calls(t, greedy, 200)
	if n := testing.AllocsPerRun(10, func() { _ = a.Allow(host(2)) }); n > 0 {
		t.Errorf("a call takes memory: %v", n)
	}
	for i := range uint32(1 << 18) {
		_ = a.Allow(host(i + 3))
		if a.Allow(greedy) == nil {
			t.Fatalf("forgotten after %d other hosts", i)
		}
	}
	a.now += time.Hour
	if n := a.calls(t, greedy, 200); n != 100 {
		t.Errorf("%d calls after an hour", n)
	}
}

// TestBound: in any order of calls of any hosts, none gets more than its burst
// and its rate, and all together no more than theirs.
func TestBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := func(name string) Rate {
			return Rate{rapid.Float64Range(0.1, 1000).Draw(t, name), rapid.IntRange(1, 50).Draw(t, name+" burst")}
		}
		each, all := rate("host"), rate("all")
		a := newAt(Config{Host: each, All: all})
		start := a.now
		got, sum := map[netip.Addr]int{}, 0
		for range rapid.IntRange(1, 300).Draw(t, "calls") {
			a.now += time.Duration(rapid.IntRange(0, int(time.Second)).Draw(t, "pause")) / 10
			h := host(rapid.Uint32Range(0, 5).Draw(t, "host"))
			n := a.calls(t, h, rapid.IntRange(1, 20).Draw(t, "times"))
			got[h], sum = got[h]+n, sum+n
			most := func(r Rate) int { return r.Burst + int(math.Ceil((a.now-start).Seconds()*r.PerSecond+0.01)) }
			if got[h] > most(each) || sum > most(all) {
				t.Fatalf("%d of a host, %d in all after %s", got[h], sum, a.now-start)
			}
		}
	})
}

// TestHonest: with hosts that ask without end, and under a flood of forged ones,
// no more honest hosts wait than collisions explain.
func TestHonest(t *testing.T) {
	const honest = 1 << 16
	for _, greedy := range []uint32{1, 100, 1000} {
		a := newAt(Config{Host: Rate{5, 100}})
		for i := range greedy {
			a.calls(t, host(i), 101)
		}
		full := 1 - math.Pow(1-1./counters, float64(greedy)) // the chance of one counter
		expected := honest * full * full
		waits := 0
		for i := range uint32(honest) {
			waits += 1 - a.calls(t, host(1<<24+i), 1)
		}
		// Hosts of one counter wait together: the spread is wide.
		t.Logf("%d greedy: %d of %d wait, %.1f are expected", greedy, waits, honest, expected)
		if most := 1.5*expected + 40; float64(waits) > most {
			t.Errorf("%d greedy: %d of %d wait, more than %.0f", greedy, waits, honest, most)
		}
	}
	// 10 000 calls a second, each in another's name, for a minute.
	a := newAt(Config{Host: Rate{5, 100}})
	machine := host(1)
	for i := range uint32(600_000) {
		a.now += 100 * time.Microsecond
		_ = a.Allow(host(1<<24 + i))
		if i%5000 == 0 && a.Allow(machine) != nil {
			t.Fatalf("an honest host waits after %d forged calls", i)
		}
	}
}
