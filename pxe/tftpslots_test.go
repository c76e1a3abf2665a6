package pxe

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/net/ipv4"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

func TestSlotsOfOneHost(t *testing.T) {
	now := &passing{passed: time.Hour}
	s := newSlots(now.Elapsed)
	host := netip.MustParseAddr("10.0.0.1")
	var gave []int
	enter := func(i int) *slot {
		n, err := s.enter(host, false, func() { gave = append(gave, i) })
		if err != nil && !errors.Is(err, errs.Busy) {
			t.Fatal(err)
		}
		return n
	}
	var half []*slot
	for i := range halfOpenPerHost {
		half = append(half, enter(i))
	}
	if enter(99) != nil {
		t.Error("one half-open transfer too many")
	}
	now.passed += halfOpenLeast
	if half = append(half, enter(halfOpenPerHost)); half[halfOpenPerHost] == nil || len(gave) != 1 || gave[0] != 0 {
		t.Errorf("gave way: %v", gave)
	}
	for i, n := range half {
		n.heard()
		n.heard()
		if n.maySend() != (i > 0) {
			t.Errorf("transfer %d may send: %v", i, i == 0)
		}
	}
	for i := range tftpTransfersPerHost - halfOpenPerHost {
		if enter(10+i) == nil {
			t.Errorf("transfer %d of a host was refused", halfOpenPerHost+i)
		}
	}
	if now.passed += time.Minute; len(s.halfOpen) != halfOpenPerHost || enter(99) == nil {
		t.Error("a half-open one did not give way to one of its host")
	}
	if len(gave) != 2 || gave[1] != 10 || s.byHost[host] != tftpTransfersPerHost {
		t.Errorf("gave way: %v, %d transfers", gave, s.byHost[host])
	}
}

func TestSlotsOfAll(t *testing.T) {
	now := &passing{passed: time.Hour}
	s := newSlots(now.Elapsed)
	var all []*slot
	for i := range tftpTransfers {
		n, err := s.enter(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), false, nil)
		if err != nil {
			t.Fatalf("transfer %d: %v; those that are answered cost nothing", i, err)
		}
		n.heard()
		all = append(all, n)
	}
	late := netip.MustParseAddr("10.2.0.1")
	if _, err := s.enter(late, true, nil); !errors.Is(err, errs.Busy) {
		t.Errorf("one transfer too many: %v", err)
	}
	for _, n := range all {
		n.leave()
		n.leave()
	}
	if n, err := s.enter(late, false, nil); err != nil || s.answered != 0 || len(s.byHost) != 1 || s.budget != unansweredBurst-1 {
		t.Errorf("%v, %d answered, %d hosts, a budget of %v", err, s.answered, len(s.byHost), s.budget)
	} else if n.leave(); s.budget != unansweredBurst {
		t.Errorf("nothing was sent, the budget is %v", s.budget)
	}
	n, err := s.enter(late, false, nil)
	if err != nil || !n.maySend() || !n.maySend() || s.budget != unansweredBurst-2 {
		t.Fatalf("%v, two packets left a budget of %v", err, s.budget)
	}
	if n.heard(); s.budget != unansweredBurst {
		t.Errorf("an answer left a budget of %v", s.budget)
	}
}

// TestSlotsLaws: whoever asks, answers and leaves in whatever order, what is
// sent to those who do not answer stays within the budget, in all and for each
// host, and only what has had its time gives way.
func TestSlotsLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := &passing{passed: time.Hour}
		s := newSlots(now.Elapsed)
		type running struct {
			*slot
			next time.Duration // the next packet
			out  int
		}
		var live []*running
		unanswered, toHost := 0, map[netip.Addr]int{} // packets
		remove := func(i int) { live = append(live[:i], live[i+1:]...) }
		host := func() netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 3).Draw(t, "net")), byte(rapid.IntRange(0, 255).Draw(t, "host"))})
		}
		only := netip.MustParseAddr("10.9.9.9")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now.passed += time.Duration(rapid.IntRange(0, 500).Draw(t, "ms")) * time.Millisecond
			for range rapid.IntRange(0, 200).Draw(t, "requests") {
				h := only
				if rapid.IntRange(0, 9).Draw(t, "who") > 0 {
					h = host()
				}
				r := &running{next: now.passed}
				n, err := s.enter(h, rapid.Bool().Draw(t, "known"), func() {
					if age := now.passed - r.began; age < halfOpenLeast {
						t.Fatalf("gave way after %s", age)
					}
				})
				if err == nil {
					r.slot = n
					live = append(live, r)
				}
			}
			for i := len(live) - 1; i >= 0; i-- {
				r := live[i]
				switch {
				case r.state == slotGone:
					remove(i)
				case r.state == slotHalfOpen && rapid.IntRange(0, 20).Draw(t, "answers") == 0:
					unanswered, toHost[r.host] = unanswered-r.out, toHost[r.host]-r.out
					r.heard()
				case r.state == slotAnswered && rapid.Bool().Draw(t, "ends"), now.passed-r.began >= (tftpRetries+1)*tftpTimeout:
					r.leave()
					remove(i)
				case r.state == slotHalfOpen && now.passed >= r.next:
					r.next = now.passed + tftpTimeout
					if r.maySend() {
						r.out++
						unanswered, toHost[r.host] = unanswered+1, toHost[r.host]+1
					}
				}
			}
			since := (now.passed - time.Hour).Seconds()
			if most := unansweredBurst + unansweredPerSecond*since; float64(unanswered) > most+0.01 {
				t.Fatalf("%d packets to those who do not answer after %.1f s", unanswered, since)
			}
			for h, n := range toHost {
				if most := 2 * halfOpenPerHost * (since + 1); float64(n) > most {
					t.Fatalf("%d packets to %s after %.1f s", n, h, since)
				}
			}
			if len(s.halfOpen) > halfOpenTransfers || s.answered > tftpTransfers+halfOpenTransfers || s.byHost[only] > tftpTransfersPerHost {
				t.Fatalf("%d half-open, %d answered, %d of one host", len(s.halfOpen), s.answered, s.byHost[only])
			}
		}
	})
}

// TestSlotsFlood: while requests are forged at some rate, a known machine is
// always let in and a stranger as often as there is budget.
func TestSlotsFlood(t *testing.T) {
	for _, c := range []struct {
		rate     int     // forged requests a second
		stranger float64 // the least share of a stranger's requests that are let in
	}{{26, 1}, {100, 1}, {200, 0.4}, {1000, 0.05}, {5000, 0}} {
		now := &passing{passed: time.Hour}
		s := newSlots(now.Elapsed)
		type forged struct {
			*slot
			packets int
		}
		var open []*forged
		asked, stranger := 0, 0
		for i := 0; now.passed < time.Hour+time.Minute; i++ {
			now.passed += time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(c.rate))
			f := &forged{}
			if n, err := s.enter(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), false, func() {}); err == nil {
				f.slot = n
				open = append(open, f)
			}
			kept := open[:0]
			for _, f := range open { // as transfers do
				if age := now.passed - f.began; age >= time.Duration(f.packets)*tftpTimeout {
					if f.packets++; f.packets > tftpRetries+1 {
						f.leave()
						continue
					}
					f.maySend()
				}
				if f.state != slotGone {
					kept = append(kept, f)
				}
			}
			open = kept
			if rand.IntN(c.rate) >= 10 || now.passed < time.Hour+10*time.Second {
				continue
			}
			now.passed += time.Duration(rand.ExpFloat64() * float64(time.Second) / float64(c.rate))
			for _, known := range []bool{true, false} {
				n, err := s.enter(netip.MustParseAddr("10.255.0.1"), known, func() { t.Error("gave way at once") })
				if err == nil {
					if !n.maySend() {
						t.Error("the first packet may not be sent")
					}
					n.heard()
					n.leave()
				}
				if known && err != nil {
					t.Fatalf("%d a second: a known machine after %s: %v", c.rate, now.passed-time.Hour, err)
				}
				if !known {
					asked++
					if err == nil {
						stranger++
					}
				}
			}
		}
		share := float64(stranger) / float64(max(1, asked))
		t.Logf("%d a second: %d of %d requests of a stranger were let in", c.rate, stranger, asked)
		if asked < 100 || share < c.stranger {
			t.Errorf("%d a second: %d of %d requests of a stranger", c.rate, stranger, asked)
		}
	}
}

// TestTFTPForged: 200 requests a second in the names of hosts that never
// answer. A known machine gets its file at once, a stranger within seconds.
func TestTFTPForged(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.address(macDeploying) // loopMachine
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	flood := make(chan int, 1)
	go func() {
		pc, sent, start := ipv4.NewPacketConn(conn), 0, time.Now()
		for clock.Pause(ctx, time.Duration(rand.Int64N(int64(10*time.Millisecond)))) == nil {
			for ; sent < int(time.Since(start).Seconds()*200); sent++ {
				cm := &ipv4.ControlMessage{Src: net.IPv4(127, 96, byte(sent>>8), byte(sent))}
				_, _ = pc.WriteTo([]byte("\x00\x01snponly.efi\x00octet\x00"), cm, net.UDPAddrFromAddrPort(r.addrs.TFTP))
			}
		}
		flood <- sent
	}()
	defer func() {
		cancel()
		<-flood
	}()
	s := r.srv.tftp.slots
	for end := time.Now().Add(deadline); ; { // the budget is used up
		s.mu.Lock()
		full := s.budget < leftByStrangers+2 && len(s.halfOpen) > tftpTransfers
		s.mu.Unlock()
		if full {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the flood has no effect")
		}
		_ = clock.Pause(t.Context(), 10*time.Millisecond)
	}
	for _, c := range []struct {
		from    string
		retries int
	}{{loopMachine, 20}, {"127.97.0.1", 60}} {
		client, err := tftp.NewClient(r.addrs.TFTP.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.SetLocalAddr(c.from); err != nil {
			t.Fatal(err)
		}
		client.SetTimeout(500 * time.Millisecond)
		client.SetRetries(c.retries)
		client.SetBackoff(func(int) time.Duration { return 0 })
		client.SetBlockSize(1468)
		start := time.Now()
		wt, err := client.Receive("snponly.efi", "octet")
		if err != nil {
			t.Fatalf("%s: %v after %s", c.from, err, time.Since(start))
		}
		var b bytes.Buffer
		if _, err := wt.WriteTo(&b); err != nil || b.Len() != 170001 {
			t.Fatalf("%s: %d bytes, %v", c.from, b.Len(), err)
		}
		t.Logf("%s: %s", c.from, time.Since(start))
	}
}
