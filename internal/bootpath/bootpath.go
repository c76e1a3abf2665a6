// Package bootpath holds the paths of the boot listeners that more than one
// package knows: package pxe serves them, the flow engine tells BMCs, agents and
// deployed systems of them. Paths that only iPXE scripts name are in package
// pxe.
package bootpath

import (
	"regexp"
	"strings"
)

// What paths begin with.
const (
	Media     = "/media/"           // and a node's id, "/", the nonce of its boot, ".iso"
	Artifact  = "/artifact/sha256/" // and a digest in lower-case hex
	PhoneHome = "/phone-home/"      // and a token; POST
)

// DefaultPurpose is the purpose of the ramdisk of every flow that asks for no
// other.
const DefaultPurpose = "default"

// MediaOf is what the paths of a node's boot media begin with, whichever boot
// they are for.
func MediaOf(node string) string { return Media + node + "/" }

// Medium is the path of the medium of one boot of a node.
func Medium(node, nonce string) string { return MediaOf(node) + nonce + ".iso" }

// ParseMedium is the other way round, for what follows Media. It checks neither.
func ParseMedium(name string) (node, nonce string) {
	node, nonce, _ = strings.Cut(strings.TrimSuffix(name, ".iso"), "/")
	return node, nonce
}

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}$`)

// ValidToken says whether a text can be the token of a phone-home.
func ValidToken(s string) bool { return token.MatchString(s) }
