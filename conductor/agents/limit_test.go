package agents

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

func TestLimits(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := newLimits(func() time.Time { return now })
	count := func(source string, calls int) (ok int) {
		for range calls {
			switch err := l.allow(source); {
			case err == nil:
				ok++
			case !errors.Is(err, errs.Busy):
				t.Fatal(err)
			}
		}
		return ok
	}
	if n := count("192.0.2.1", 1000); n != enrolBurstPerSource {
		t.Errorf("%d at once from one source", n)
	}
	if n := count("192.0.2.2", 1); n != 1 {
		t.Error("one source takes from another")
	}
	now = now.Add(time.Second)
	if n := count("192.0.2.1", 1000); n != int(enrolPerSource) {
		t.Errorf("%d in a second from one source", n)
	}
	now = now.Add(time.Minute)
	all := 0
	for i := range 3 * sourcesKept {
		all += count(fmt.Sprint("s", i), 1)
	}
	if all != enrolBurstInAll {
		t.Errorf("%d at once from all", all)
	}
	if len(l.sources) > sourcesKept {
		t.Errorf("%d sources are kept", len(l.sources))
	}
	now = now.Add(time.Minute)
	if count("fresh", 1) != 1 || len(l.sources) > 2 {
		t.Errorf("%d sources are kept after a minute of silence", len(l.sources))
	}
}
