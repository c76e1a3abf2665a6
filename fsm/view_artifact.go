package fsm

import (
	"iter"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Artifact is an artifact by its digest.
func (v *View) Artifact(digest string) *api.Artifact { return first(v.txn, artifacts, byID, digest) }

// Artifacts are all artifacts by digest.
func (v *View) Artifacts() iter.Seq[*api.Artifact] { return scan(v.txn, artifacts, byID) }

// ArtifactByChecksum is the artifact whose bytes have a checksum, "sha256:HEX"
// or "sha512:HEX".
func (v *View) ArtifactByChecksum(checksum string) *api.Artifact {
	if digest, ok := strings.CutPrefix(checksum, "sha256:"); ok {
		return v.Artifact(digest)
	}
	if checksum == "" {
		return nil
	}
	return first(v.txn, artifacts, byAlias, checksum)
}

// minPrefix is how much of a digest names an artifact.
const minPrefix = 8

// ArtifactByRef is an artifact by its digest, by the first eight digits of it
// or more, or by its name, when only one has it; errs.NotFound or errs.Invalid
// otherwise.
func (v *View) ArtifactByRef(ref string) (*api.Artifact, error) {
	if a := v.Artifact(ref); a != nil {
		return a, nil
	}
	ref = strings.TrimPrefix(ref, "sha256:")
	var found []*api.Artifact
	for a := range v.Artifacts() {
		if ref != "" && a.GetName() == ref || len(ref) >= minPrefix && strings.HasPrefix(a.GetDigest(), ref) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return nil, noSuch("artifact", clip(ref, maxID))
	case 1:
		return found[0], nil
	}
	return nil, errs.About(errs.Invalid, clip(ref, maxID), "%d artifacts are called %q: give more of the digest", len(found), clip(ref, maxID))
}

// Ramdisk is what machines of an architecture boot for a purpose.
func (v *View) Ramdisk(arch, purpose string) *api.Ramdisk {
	return first(v.txn, ramdisks, byID, ramdiskKey(arch, purpose))
}

// Ramdisks are all ramdisks by architecture and purpose.
func (v *View) Ramdisks() []*api.Ramdisk { return collect(scan(v.txn, ramdisks, byID)) }

// ArtifactUsers says for each artifact that something refers to by whom: a
// ramdisk, an unfinished flow, the instance_info of a node.
func (v *View) ArtifactUsers() map[string][]string {
	users := map[string][]string{}
	sums := map[string]string{} // digest or checksum in hex -> digest
	for a := range v.Artifacts() {
		sums[a.GetDigest()] = a.GetDigest()
		if _, sum, ok := strings.Cut(a.GetAlias(), ":"); ok {
			sums[sum] = a.GetDigest()
		}
	}
	if len(sums) == 0 {
		return users
	}
	note := func(digest, who string) {
		if have := users[digest]; len(have) == 0 || have[len(have)-1] != who {
			users[digest] = append(have, who)
		}
	}
	for _, r := range v.Ramdisks() {
		note(r.GetKernel(), ramdiskLabel(r))
		note(r.GetInitramfs(), ramdiskLabel(r))
	}
	for f := range v.RunningFlows() {
		for sum := range hexRuns(f.GetArgs()) {
			if d := sums[sum]; d != "" {
				note(d, flowLabel(f))
			}
		}
	}
	for n := range v.Nodes() {
		for sum := range hexRuns(n.GetInstanceInfo()) {
			if d := sums[sum]; d != "" {
				note(d, nodeLabel(n))
			}
		}
	}
	return users
}

// hexRuns are the runs of lower-case hex digits in a document that are as long
// as a SHA-256 or SHA-512 digest.
func hexRuns(doc []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		start := 0
		for i := 0; i <= len(doc); i++ {
			if i < len(doc) && (doc[i] >= '0' && doc[i] <= '9' || doc[i] >= 'a' && doc[i] <= 'f') {
				continue
			}
			if n := i - start; (n == 64 || n == 128) && !yield(string(doc[start:i])) {
				return
			}
			start = i + 1
		}
	}
}
