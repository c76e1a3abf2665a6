package seal

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

// LooksSecret is the one rule by which a key of a document, or of a command
// line, is taken for the name of a secret. It errs on the side of sealing: a
// value that is sealed without need is only not shown.
func LooksSecret(key string) bool {
	key = strings.ToLower(strings.ReplaceAll(key, "-", "_"))
	if slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(key, w) }) {
		return true
	}
	if slices.ContainsFunc(publicKeys, func(p string) bool { return strings.HasSuffix(key, p) }) {
		return false
	}
	return key == "key" || strings.HasSuffix(key, "_key")
}

// SecretPath reports whether a value is a secret because of its key or of one
// that it stands below.
func SecretPath(path []string) bool { return slices.ContainsFunc(path, LooksSecret) }

// NodeAAD is the place of a document of a node: what is sealed for it opens
// nowhere else.
func NodeAAD(node, field string) string { return "node/" + node + "/" + field }

// PortAAD is the place of a document of a port.
func PortAAD(port, field string) string { return "port/" + port + "/" + field }
