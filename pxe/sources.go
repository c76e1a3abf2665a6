package pxe

import (
	"hash/maphash"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// sourceBuckets is how many buckets all hosts share.
const sourceBuckets = 4096

// sources limits how often a host may ask, in memory that does not grow with
// the number of hosts: anybody can send in the name of as many as he likes, and
// a table that he can fill is one that he can have forgotten.
//
// Hosts share buckets by a hash that nobody outside can compute. Each has two,
// and is refused when both are empty: a host that asks without end empties two,
// and hardly anybody else has the same two. Safe for concurrent use.
type sources struct {
	seed    maphash.Seed
	buckets []*rate.Limiter
}

func newSources(perSecond rate.Limit, burst int) *sources {
	s := &sources{seed: maphash.MakeSeed(), buckets: make([]*rate.Limiter, sourceBuckets)}
	for i := range s.buckets {
		s.buckets[i] = rate.NewLimiter(perSecond, burst)
	}
	return s
}

// allow counts a request.
func (s *sources) allow(from netip.Addr, now time.Time) bool {
	h := maphash.Comparable(s.seed, from)
	one := s.buckets[h%sourceBuckets].AllowN(now, 1)
	two := s.buckets[(h>>32)%sourceBuckets].AllowN(now, 1)
	return one || two
}
