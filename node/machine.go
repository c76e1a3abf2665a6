package node

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// Which machine is behind a BMC, by what the BMC tells of it. What is on a
// node's record is verified as long as it was read with the driver and
// driver_info that the node has now: whoever changes them changes driver_rev in
// the same command, and nothing has to be marked.

// BMCChanged says whether driver or driver_info have changed since the BMC was
// verified: it may be another one.
func BMCChanged(n *api.Node) bool { return n.GetBmc().GetDriverRev() != n.GetDriverRev() }

// Verified says whether it is known whose BMC the node's driver_info leads to.
func Verified(n *api.Node) bool { return n.GetBmc() != nil && !BMCChanged(n) }

// Likeness is what two readings of BMCs say of the machines behind them.
type Likeness uint8

// The readings name nothing that both have, one machine, or two.
const (
	Untold Likeness = iota
	SameMachine
	AnotherMachine
)

// Compare says whether two readings are of one machine. The first of UUID,
// serial number and MAC addresses of the BMC that both tell decides. The same
// address is the same machine only where neither tells any of these: an address
// whose BMC told more before, or tells more now, may be another machine's. It is
// symmetric.
func Compare(is, was *api.BmcFacts) Likeness {
	like := func(same bool) Likeness {
		if same {
			return SameMachine
		}
		return AnotherMachine
	}
	if a, b := TellingUUIDs(is), TellingUUIDs(was); len(a) > 0 && len(b) > 0 {
		return like(slices.ContainsFunc(a, func(x string) bool {
			return slices.ContainsFunc(b, func(y string) bool { return SameUUID(x, y) })
		}))
	}
	if a, b := is.GetSerial(), was.GetSerial(); TellingSerial(a) && TellingSerial(b) {
		return like(sameSerial(a, b))
	}
	a, b := tellingMACs(is), tellingMACs(was)
	if len(a) > 0 && len(b) > 0 && !twoSystems(is, was) {
		return like(slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) }))
	}
	if is.GetBmcKey() != "" && is.GetBmcKey() == was.GetBmcKey() && !tells(is) && !tells(was) {
		return SameMachine
	}
	return Untold
}

// tells says whether a BMC told anything by which machines are told apart,
// beside its address.
func tells(f *api.BmcFacts) bool {
	return len(TellingUUIDs(f)) > 0 || TellingSerial(f.GetSerial()) || len(tellingMACs(f)) > 0
}

// twoSystems says whether the readings are of different systems (the third word
// of bmc_key, which Redfish has): a BMC may have several, and one MAC address for
// all.
func twoSystems(a, b *api.BmcFacts) bool {
	system := func(f *api.BmcFacts) string {
		if words := strings.SplitN(f.GetBmcKey(), " ", 3); len(words) == 3 {
			return words[2]
		}
		return ""
	}
	x, y := system(a), system(b)
	return x != "" && y != "" && x != y
}

// Claims are the marks by which a machine is looked up, in their normal forms:
// two readings that Compare takes for one machine share one of these or their
// bmc_key. That they share one proves nothing yet: Compare decides.
func Claims(f *api.BmcFacts) []string {
	if f == nil {
		return nil
	}
	var out []string
	claim := func(c string) {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, u := range TellingUUIDs(f) {
		claim("uuid " + UUIDKey(u))
	}
	if s := f.GetSerial(); TellingSerial(s) {
		claim("serial " + serialKey(s))
	}
	for _, m := range tellingMACs(f) {
		claim("mac " + m)
	}
	return out
}

// Richer is a reading with what an earlier one of the same machine told besides,
// so that a BMC that has no answer for once gives up no claim. It changes
// neither.
func Richer(is, was *api.BmcFacts) *api.BmcFacts {
	out := proto.CloneOf(is)
	if len(TellingUUIDs(is)) == 0 && len(TellingUUIDs(was)) > 0 {
		out.SystemUuid, out.SystemUuids = was.GetSystemUuid(), slices.Clone(was.GetSystemUuids())
	}
	if !TellingSerial(is.GetSerial()) && TellingSerial(was.GetSerial()) {
		out.Serial = was.GetSerial()
	}
	if len(tellingMACs(is)) == 0 && len(tellingMACs(was)) > 0 {
		out.BmcMacs = slices.Clone(was.GetBmcMacs())
	}
	return out
}

// IsMachine says whether a person means this machine by its UUID, its serial
// number, or, where it tells neither, its BMC's address as Machine has it.
func IsMachine(f *api.BmcFacts, name string) bool {
	uuids, serial := TellingUUIDs(f), f.GetSerial()
	switch {
	case name == "":
		return false
	case slices.ContainsFunc(uuids, func(u string) bool { return SameUUID(u, name) }):
		return true
	case TellingSerial(serial):
		return sameSerial(serial, name)
	}
	return len(uuids) == 0 && name == f.GetBmcKey()
}

// Machine is a machine in words: what its BMC tells of it. name is what
// IsMachine takes for it.
func Machine(f *api.BmcFacts) (text, name string) {
	var told []string
	if uuids := TellingUUIDs(f); len(uuids) > 0 {
		told, name = append(told, "UUID "+uuids[0]), uuids[0]
	}
	if s := strings.TrimSpace(f.GetSerial()); TellingSerial(s) {
		told = append(told, "serial number "+s)
		if name == "" {
			name = s
		}
	}
	if len(told) == 0 {
		return "a machine that tells neither UUID nor serial number, BMC " + f.GetBmcKey(), f.GetBmcKey()
	}
	return strings.Join(told, ", "), name
}

// TellingUUIDs are all readings of the UUID that a BMC gave, the likeliest
// first, if it can tell one machine from another.
func TellingUUIDs(f *api.BmcFacts) []string {
	all := append([]string{f.GetSystemUuid()}, f.GetSystemUuids()...)
	return slices.DeleteFunc(all, func(u string) bool { return !TellingUUID(u) })
}

// SameUUID compares UUIDs in whatever order of bytes firmware tells them:
// SMBIOS 2.6 and later and RFC 4122 turn the first three fields, IPMI's Get
// System GUID the whole.
func SameUUID(a, b string) bool {
	x, y := UUIDKey(a), UUIDKey(b)
	return x != "" && x == y
}

func sameSerial(a, b string) bool {
	return serialKey(a) == serialKey(b)
}

// serialKey is a serial number without regard to case and space around it.
func serialKey(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// tellingMACs are the addresses of the BMC that no other can have.
func tellingMACs(f *api.BmcFacts) []string {
	return slices.DeleteFunc(NormalMACs(f.GetBmcMacs()), func(m string) bool { return !tellingMAC(m) })
}

// NormalMACs are those of the texts that a NIC can have, in one form.
func NormalMACs(texts []string) (out []string) {
	for _, t := range texts {
		if m, err := NormalizeMAC(t); err == nil {
			out = append(out, m)
		}
	}
	return out
}
