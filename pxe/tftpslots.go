package pxe

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// Bounds of transfers.
//
// Anybody can send a request in another's name, so what counts is what is sent
// to those who have not answered: a transfer is half-open until its client has.
// Each packet to such a client, the first one or a copy of it, 516 bytes at
// most, is taken from one budget, unansweredPerSecond after unansweredBurst;
// those that are answered after all are given back. So that is all that forged
// requests can make us send, however many they are. To one victim it is 8
// packets a second: of one host 4 transfers may be half-open, each lives for a
// second at least and sends one packet in each.
//
// When half-open transfers fill their share, the oldest gives way. Since no more
// of them than the budget has can begin in a second, it has had that second to
// answer (halfOpenLeast), and the client of a network that works has needed
// some milliseconds.
//
// Who gets the budget when it is short: machines that we know before
// strangers, and requests before copies. A flood in the names of strangers
// therefore does not delay a known machine, whatever its rate.
const (
	tftpTransfers        = 128 // answered ones; while there are that many, none is begun
	tftpTransfersPerHost = 8   // of one host, half-open ones too
	halfOpenTransfers    = unansweredBurst + unansweredPerSecond*int(halfOpenLeast/time.Second)
	halfOpenPerHost      = 4
	halfOpenLeast        = tftpTimeout

	// A client that answers each block just in time would otherwise keep its
	// place for hours. 1 MiB in blocks of 1 468 bytes has that long at 160 ms
	// from packet to answer.
	tftpWhole = 2 * time.Minute

	unansweredPerSecond = 128 // packets
	unansweredBurst     = 128
	leftByStrangers     = unansweredBurst / 4 // what they leave of the budget
	leftByCopies        = unansweredBurst / 2
)

// slots decides which requests become transfers. Safe for concurrent use.
type slots struct {
	passed func() time.Duration

	mu       sync.Mutex
	answered int                // transfers; guarded by mu
	halfOpen []*slot            // oldest first; guarded by mu
	byHost   map[netip.Addr]int // transfers of both kinds; guarded by mu
	budget   float64            // packets, as of filled; guarded by mu
	filled   time.Duration      // guarded by mu
}

func newSlots(passed func() time.Duration) *slots {
	return &slots{passed: passed, byHost: map[netip.Addr]int{}, budget: unansweredBurst, filled: passed()}
}

// slot is the place of a transfer.
type slot struct {
	of      *slots
	host    netip.Addr
	began   time.Duration
	giveWay func() // ends the transfer

	state slotState // guarded by of.mu
	taken int       // packets of the budget, the first one from the beginning; guarded by of.mu
	sent  bool      // guarded by of.mu
}

type slotState int

const (
	slotHalfOpen slotState = iota
	slotAnswered
	slotGone
)

// enter counts a transfer in, or says why it has to wait. giveWay is called,
// at most once, when it has to end for another one's sake.
func (s *slots) enter(host netip.Addr, known bool, giveWay func()) (*slot, error) {
	s.mu.Lock()
	now := s.passed()
	left := leftByStrangers
	if known {
		left = 0
	}
	old, room := s.roomLocked(host, now)
	if !room {
		s.mu.Unlock()
		return nil, errs.New(errs.Busy, "too many transfers")
	}
	if !s.takeLocked(now, left) {
		s.mu.Unlock()
		return nil, errs.New(errs.Busy, "too many requests whose senders do not answer")
	}
	if old != nil {
		s.endLocked(old)
	}
	n := &slot{of: s, host: host, began: now, giveWay: giveWay, taken: 1}
	s.halfOpen = append(s.halfOpen, n)
	s.byHost[host]++
	s.mu.Unlock()
	if old != nil {
		old.giveWay()
	}
	return n, nil
}

// roomLocked says whether a host may begin a transfer, and which one has to
// give way for it.
func (s *slots) roomLocked(host netip.Addr, now time.Duration) (old *slot, ok bool) {
	if s.answered >= tftpTransfers {
		return nil, false
	}
	waiting := 0
	for _, o := range slices.Backward(s.halfOpen) {
		if o.host == host {
			waiting, old = waiting+1, o
		}
	}
	switch {
	case waiting >= halfOpenPerHost:
	case s.byHost[host] >= tftpTransfersPerHost:
		return nil, false
	case len(s.halfOpen) >= halfOpenTransfers:
		old = s.halfOpen[0]
	default:
		return nil, true
	}
	return old, now-old.began >= halfOpenLeast
}

// takeLocked takes a packet from the budget if more than left are in it.
func (s *slots) takeLocked(now time.Duration, left int) bool {
	s.budget = min(unansweredBurst, s.budget+(now-s.filled).Seconds()*unansweredPerSecond)
	s.filled = now
	if s.budget < float64(left+1) {
		return false
	}
	s.budget--
	return true
}

// endLocked forgets a transfer.
func (s *slots) endLocked(n *slot) {
	switch n.state {
	case slotGone:
		return
	case slotAnswered:
		s.answered--
	case slotHalfOpen:
		s.halfOpen = slices.DeleteFunc(s.halfOpen, func(o *slot) bool { return o == n })
		if !n.sent {
			s.giveBackLocked(n)
		}
	}
	n.state = slotGone
	if s.byHost[n.host]--; s.byHost[n.host] == 0 {
		delete(s.byHost, n.host)
	}
}

func (s *slots) giveBackLocked(n *slot) {
	s.budget = min(unansweredBurst, s.budget+float64(n.taken))
	n.taken = 0
}

// maySend says whether the client's next packet may be sent. One that may not
// is as good as lost.
func (n *slot) maySend() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	switch {
	case n.state == slotAnswered:
	case n.state == slotGone:
		return false
	case !n.sent: // was taken at the beginning
		n.sent = true
	case n.of.takeLocked(n.of.passed(), leftByCopies):
		n.taken++
	default:
		return false
	}
	return true
}

// heard says that the client has answered: it did ask.
func (n *slot) heard() {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.state != slotHalfOpen {
		return
	}
	n.of.halfOpen = slices.DeleteFunc(n.of.halfOpen, func(o *slot) bool { return o == n })
	n.of.giveBackLocked(n)
	n.of.answered++
	n.state = slotAnswered
}

// alone says that no other transfer is under way whose client answers.
func (n *slot) alone() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.state == slotAnswered && n.of.answered == 1
}

// overdue says that the transfer has had its time.
func (n *slot) overdue() bool { return n.of.passed()-n.began > tftpWhole }

// leave ends the transfer.
func (n *slot) leave() {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	n.of.endLocked(n)
}
