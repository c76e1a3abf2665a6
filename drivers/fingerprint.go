package drivers

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Fingerprint is a certificate's fingerprint in the one way that we write it,
// "sha256:HEX", from the ways that tools do: upper case, colons between bytes.
func Fingerprint(text string) (normal string, ok bool) {
	algo, sum, ok := strings.Cut(strings.ToLower(strings.TrimSpace(text)), ":")
	sum = strings.ReplaceAll(sum, ":", "")
	raw, err := hex.DecodeString(sum)
	return "sha256:" + sum, ok && algo == "sha256" && err == nil && len(raw) == sha256.Size
}
