package node

import (
	"crypto/sha256"

	"github.com/ironring/ironring/api"
)

// PhoneHomeDigest is what records and commands have in the place of a
// phone-home token: they stand in the log in clear, and a token has entropy
// enough that its digest does not give it away.
func PhoneHomeDigest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// AwaitsSystem reports whether a deploy is as far as its evidence: the machine
// was off, boots from its disk by its record, and switching it on was begun.
// What calls before that is not the system that is being deployed.
func AwaitsSystem(f *api.Flow) bool {
	for i, s := range f.GetSteps() {
		if IDOf(s) == StepEvidence {
			at := int(f.GetCursor())
			return at >= i || at == i-1 && f.GetStarted() && IDOf(f.GetSteps()[at]) == StepPowerOn
		}
	}
	return false
}
