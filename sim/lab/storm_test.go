package lab

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/clock"
)

// The boot storm.
const (
	stormMachines = 300
	stormWithin   = 10 * time.Second // all machines come on in that time
	stormKill     = 4 * time.Second  // after its start
	stormLimit    = 8 * time.Minute  // of the whole benchmark
)

// BenchmarkBootStorm has 300 machines come on within ten seconds, as after a
// power cut, and kills one of three peers meanwhile. Everything is real but
// firmware and hardware, and runs on this host: peers, machines and agents
// share its processors.
func BenchmarkBootStorm(b *testing.B) {
	l := &lab{dir: shortDir(b), start: time.Now(), opts: Options{
		Peers: 3, Binary: binary(b), ImageMiB: imageMiB, ImageRate: 1 << 20, Progress: b.Output(), Logger: quiet,
	}}
	g := &gate{open: make(chan struct{})}
	l.machines.start = g.wait
	ctx, cancel := context.WithTimeout(context.Background(), stormLimit)
	defer cancel()
	defer func() {
		if err := l.down(); err != nil {
			b.Error(err)
		}
	}()
	if err := l.up(ctx); err != nil {
		b.Fatal(err)
	}
	for range stormMachines {
		if _, err := l.addMachine(machineDisk); err != nil {
			b.Fatal(err)
		}
	}
	each := func(f func(n *node) error) (failed int) {
		var all sync.WaitGroup
		var bad atomic.Int64
		for _, n := range l.nodes {
			all.Go(func() {
				if err := f(n); err != nil {
					bad.Add(1)
					b.Logf("%s: %v", n.name, err)
				}
			})
		}
		all.Wait()
		return int(bad.Load())
	}
	verb := func(n *node, v api.Event) (uint64, error) {
		reply, err := l.client.Provision(ctx, &api.ProvisionRequest{Node: n.name, Verb: v})
		return reply.GetIndex(), err
	}
	settled := func(n *node, after uint64) error {
		_, err := l.client.Wait(ctx, n.name, client.Until{State: api.State_MANAGEABLE, After: after}, nil)
		return err
	}
	if bad := each(func(n *node) error {
		if err := l.enrol(ctx, n); err != nil {
			return err
		}
		after, err := verb(n, api.Event_EV_MANAGE)
		if err != nil {
			return err
		}
		return settled(n, after)
	}); bad > 0 {
		b.Fatalf("%d machines could not be verified", bad)
	}
	var asked sync.Map
	if bad := each(func(n *node) error {
		after, err := verb(n, api.Event_EV_INSPECT)
		asked.Store(n.name, after)
		return err
	}); bad > 0 {
		b.Fatalf("%d machines could not be asked to boot", bad)
	}
	for g.waiting.Load() < stormMachines {
		if clock.Pause(ctx, 10*time.Millisecond) != nil {
			b.Fatalf("%d of %d machines are on", g.waiting.Load(), stormMachines)
		}
	}
	start := time.Now()
	close(g.open)
	if clock.Pause(ctx, stormKill) != nil {
		b.Fatal(ctx.Err())
	}
	victim := l.peers[len(l.peers)-1]
	l.say("%s is killed", victim.id)
	victim.kill()
	failed := each(func(n *node) error {
		after, _ := asked.Load(n.name)
		return settled(n, after.(uint64))
	})
	took := time.Since(start)
	var dhcp []time.Duration
	up, again, most := 0, 0, 0
	for _, n := range l.nodes {
		st := n.machine.Stats()
		dhcp = append(dhcp, st.DHCP...)
		// What a machine had to do once more: ask, boot, be switched on.
		retries := st.DHCPAgain + st.Netboots - 1 + st.PowerOns - 1
		again, most = again+retries, max(most, retries)
		if st.RamdiskRuns > 0 {
			up++
		}
	}
	slices.Sort(dhcp)
	b.ReportMetric(float64(up), "up")
	b.ReportMetric(float64(failed), "failed")
	b.ReportMetric(float64(again), "retries")
	b.ReportMetric(float64(most), "retries-of-one")
	b.ReportMetric(float64(dhcp[len(dhcp)/2].Microseconds())/1000, "dhcp-p50-ms")
	b.ReportMetric(float64(dhcp[len(dhcp)*99/100].Microseconds())/1000, "dhcp-p99-ms")
	b.ReportMetric(took.Seconds(), "s-until-inspected")
	b.ReportMetric(0, "ns/op")
	// What the figures should be stands in docs/testing.md; `make bench-check`
	// compares. A benchmark that fails prints none.
	b.Logf("%d of %d machines are up, %d flows failed", up, stormMachines, failed)
}

// gate holds machines up until it is opened, and then lets them come on at
// random moments of stormWithin. Who comes on later is not held up.
type gate struct {
	open    chan struct{}
	waiting atomic.Int64
}

func (g *gate) wait(ctx context.Context) {
	select {
	case <-g.open:
		return
	default:
	}
	g.waiting.Add(1)
	select {
	case <-ctx.Done():
	case <-g.open:
		_ = clock.Pause(ctx, rand.N(stormWithin)) // a machine that is switched off ends anyhow
	}
}
