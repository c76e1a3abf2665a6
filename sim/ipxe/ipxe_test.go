package ipxe

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// fake notes what a script did; URLs in good succeed.
type fake struct {
	good   map[string]bool
	script string
	did    []string
}

func (f *fake) Fetch(_ context.Context, name, url string, _ time.Duration) error {
	f.did = append(f.did, "fetch "+name+" "+url)
	if !f.good[url] {
		return errs.New(errs.Timeout, "no answer")
	}
	return nil
}

func (f *fake) Script(_ context.Context, url string, _ time.Duration) (string, error) {
	f.did = append(f.did, "script "+url)
	if f.script == "" {
		return "", errs.New(errs.Timeout, "no answer")
	}
	return f.script, nil
}

func (f *fake) DHCP(context.Context) (Settings, error) {
	f.did = append(f.did, "dhcp")
	return Settings{"filename": "http://b/x"}, nil
}

func (f *fake) Sleep(_ context.Context, d time.Duration) error {
	f.did = append(f.did, "sleep "+d.String())
	return nil
}

func (f *fake) Print(line string) { f.did = append(f.did, "print "+line) }

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, script string
		good         []string
		want         Outcome
		did          string
		fails        error
	}{
		{"empty", "#!ipxe", nil, Outcome{}, "", nil},
		{"no script", "hello", nil, Outcome{}, "", errs.Invalid},
		{"exit", "#!ipxe\necho bye\nexit 1\necho no\n", nil, Outcome{Exit: 1}, "print bye", nil},
		{
			"boot", "#!ipxe\nset line a=b c\nkernel --timeout 5 http://k/v x ${line}\ninitrd --name i http://k/i\nboot\n",
			[]string{"http://k/v", "http://k/i"},
			Outcome{Booted: true, Kernel: "http://k/v", Line: "x a=b c", Initrd: "http://k/i"},
			"fetch v http://k/v,fetch i http://k/i", nil,
		},
		{"failure ends", "#!ipxe\nkernel http://k/v\necho no\n", nil, Outcome{}, "", errs.Timeout},
		{"or", "#!ipxe\nkernel http://k/v || goto out\n:out\nexit 2", nil, Outcome{Exit: 2}, "fetch v http://k/v", nil},
		{"never fails", "#!ipxe\niseq a b && echo no ||\niseq a a && echo yes ||\n", nil, Outcome{}, "print yes", nil},
		{"isset", "#!ipxe\nisset ${a} || set a 1\nisset ${a} || set a 2\necho ${a}\n", nil, Outcome{}, "print 1", nil},
		{"unknown command", "#!ipxe\nsanboot x\n", nil, Outcome{}, "", errs.Unsupported},
		{"unknown label", "#!ipxe\ngoto x\n", nil, Outcome{}, "", errs.Invalid},
		{"endless", "#!ipxe\n:a\ngoto a\n", nil, Outcome{}, "", errs.Busy},
		{"chain", "#!ipxe\ndhcp\nchain --autofree --replace ${filename} ||\n", nil, Outcome{}, "dhcp,script http://b/x", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{good: map[string]bool{}}
			for _, u := range c.good {
				f.good[u] = true
			}
			got, err := Run(t.Context(), f, c.script, Settings{})
			if c.fails != nil {
				if !errors.Is(err, c.fails) {
					t.Fatalf("error %v, want %v", err, c.fails)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			if did := strings.Join(f.did, ","); did != c.did {
				t.Fatalf("did %s, want %s", did, c.did)
			}
		})
	}
}

func TestChainReplaces(t *testing.T) {
	f := &fake{script: "#!ipxe\nexit 7\n"}
	got, err := Run(t.Context(), f, "#!ipxe\nset filename http://a/y\nchain --replace ${filename}\nexit 3\n", Settings{})
	if err != nil || got.Exit != 7 || !slices.Contains(f.did, "script http://a/y") {
		t.Fatalf("got %+v, %v, did %v", got, err, f.did)
	}
}

func FuzzRun(f *testing.F) {
	f.Add("#!ipxe\nset a ${b}\ngoto ${a} || exit 1\n")
	f.Fuzz(func(t *testing.T, script string) {
		if len(script) > 1000 {
			return
		}
		_, _ = Run(t.Context(), &fake{script: "#!ipxe\n"}, script, Settings{})
	})
}
