package looks

import (
	"net/url"
	"slices"
	"strings"
)

// SecretURL is the one rule by which a URL is taken for one that gives a secret
// away: it says why, as the rest of a sentence, or "" when nothing in the URL
// looks like a secret. The text holds nothing of the URL.
func SecretURL(raw string) (why string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil && strings.ContainsAny(raw, "@?"):
		return "cannot be read as a URL, and may hold a secret" // a password is often what cannot be read
	case err != nil:
		return ""
	case u.User != nil:
		return "has a user or a password in it"
	}
	for _, part := range strings.FieldsFunc(u.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, hasValue := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if !hasValue && len(name) >= 16 || signs(name) {
			return "has a query that looks like a signature or a token"
		}
	}
	return ""
}

// signatures are what the names of signatures in queries are, or end in, beside
// what names of secrets have in them.
var signatures = []string{"sig", "signature", "auth", "authorization", "hmac", "jwt", "sas"}

func signs(name string) bool {
	if Secret(name) {
		return true
	}
	words := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return c == '-' || c == '_' || c == '.' })
	return len(words) > 0 && slices.Contains(signatures, words[len(words)-1])
}
