package ring

import (
	"cmp"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/ironring/ironring/internal/errs"
)

// Version 1: xxhash64 of the node's id; point k of a member is xxhash64 of
// "ID/k"; 256 points for each unit of weight; a hash that falls on a point
// belongs to that point.
const Version = 1

// pointsPerWeight and maxWeight bound the size of a ring.
const (
	pointsPerWeight = 256
	maxWeight       = 100
)

// CheckVersion refuses a ring version that this build does not know; Plan and
// Placer must not be used with it. Version 0 is 1.
func CheckVersion(v uint32) error {
	if v > Version {
		return errs.New(errs.Unsupported, "ring version %d is not known to this build, which knows %d", v, Version)
	}
	return nil
}

// point is a place on the ring that belongs to a member.
type point struct {
	hash   uint64
	member int // index in the sorted list of members
}

// points places members on a ring: weight(i) says how heavy member i is, 0 for
// not at all.
func points(members []Member, weight []uint64) []point {
	var ring []point
	for i, m := range members {
		prefix := m.ID + "/"
		for k := range pointsPerWeight * weight[i] {
			ring = append(ring, point{xxhash.Sum64String(prefix + strconv.FormatUint(k, 10)), i})
		}
	}
	slices.SortFunc(ring, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.member, b.member))
	})
	return ring
}

// first is the place of the first point at or after a hash.
func first(ring []point, hash uint64) int {
	i := sort.Search(len(ring), func(i int) bool { return ring[i].hash >= hash })
	if i == len(ring) {
		return 0
	}
	return i
}

func hashNode(id string) uint64 { return xxhash.Sum64String(id) }
