// Package rootdisk decides which disk of a machine gets the image. Being wrong
// here destroys somebody's data, so it refuses whenever it would have to guess.
//
// Invariants:
//   - A disk for which Ineligible gives a reason, or which is smaller than the
//     limit, is never chosen, whatever the hints say.
//   - Without hints and with more than one candidate nothing is chosen. The
//     same holds for hints that fit more than one candidate.
//   - A chosen disk can be recognised: Match(ID(d), disks) is d.
//   - The order of the disks and their names decide nothing.
//
// All functions are pure and may be called concurrently. Start at Choose. The
// syntax of hints is described at Hints in hints.go.
package rootdisk
