package seal

import (
	"slices"

	"github.com/ironring/ironring/internal/seal/looks"
)

// LooksSecret is looks.Secret, the one rule for names of secrets.
func LooksSecret(key string) bool { return looks.Secret(key) }

// SecretPath reports whether a value is a secret because of its key or of one
// that it stands below.
func SecretPath(path []string) bool { return slices.ContainsFunc(path, LooksSecret) }

// NodeAAD is the place of a document of a node: what is sealed for it opens
// nowhere else.
func NodeAAD(node, field string) string { return "node/" + node + "/" + field }

// PortAAD is the place of a document of a port.
func PortAAD(port, field string) string { return "port/" + port + "/" + field }
