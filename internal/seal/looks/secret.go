// Package looks knows what looks like a secret: names of values, and URLs. It
// says so of texts only, has no state and imports nothing that does, so that also
// what must be deterministic can ask it. Package seal keeps what it finds.
package looks

import (
	"slices"
	"strings"
)

// secretWords are what the names of secrets have in them.
var secretWords = []string{
	"password", "passwd", "passphrase", "secret", "token", "credential", "community",
	"private_key", "privatekey", "api_key", "apikey", "access_key", "accesskey",
}

// publicKeys end like secrets and are none.
var publicKeys = []string{"public_key", "authorized_key", "host_key"}

// Secret is the one rule by which a key of a document, or of a command
// line, is taken for the name of a secret. It errs on the side of sealing: a
// value that is sealed without need is only not shown.
func Secret(key string) bool {
	key = strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	if slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(key, w) }) {
		return true
	}
	if slices.ContainsFunc(publicKeys, func(p string) bool { return strings.HasSuffix(key, p) }) {
		return false
	}
	return key == "key" || strings.HasSuffix(key, "_key")
}
