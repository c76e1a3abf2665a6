package cli

import (
	"net/url"
	"slices"
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

const deploySecretsHelp = `What is secret is not given on the command line, which every user of the host
can read: URLs with a user, a password or a signature, and phone-home tokens,
are read from a file (@FILE), from standard input (-) or from the environment
(env:NAME).`

// secret is the value of a flag that is a secret.
func (v *values) secret(flag, arg string) (string, error) {
	text, read, err := v.from(flag, "", arg)
	if err == nil && !read && arg != "" {
		err = argvSecret(flag, "is a secret")
	}
	return text, err
}

// url is the value of a flag that is a URL. One that was typed may have nothing
// in it that looks like a secret.
func (v *values) url(flag, arg string) (string, error) {
	text, read, err := v.from(flag, "", arg)
	if err == nil && !read {
		err = checkTypedURL(flag, arg)
	}
	return strings.TrimSpace(text), err
}

// checkTypedURL refuses a URL on the command line that gives a secret away. The
// URL itself is not shown: it is what must not be seen.
func checkTypedURL(flag, arg string) error {
	u, err := url.Parse(arg)
	if err != nil { // a password is often what cannot be read
		if strings.ContainsAny(arg, "@?") {
			return argvSecret(flag, "cannot be read as a URL, and may hold a secret")
		}
		return nil // for the cluster to say
	}
	if u.User != nil {
		return argvSecret(flag, "has a user or a password in it")
	}
	for _, part := range strings.FieldsFunc(u.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, hasValue := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if !hasValue && len(name) >= 16 || signs(name) {
			return argvSecret(flag, "has a query that looks like a signature or a token")
		}
	}
	return nil
}

// signatures are what the names of signatures in queries are, or end in, beside
// what names of secrets have in them.
var signatures = []string{"sig", "signature", "auth", "authorization", "hmac", "jwt", "sas"}

func signs(name string) bool {
	if seal.LooksSecret(name) {
		return true
	}
	words := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return c == '-' || c == '_' || c == '.' })
	return len(words) > 0 && slices.Contains(signatures, words[len(words)-1])
}

func argvSecret(flag, why string) error {
	return errs.About(errs.Invalid, flag,
		"--%s %s, and the command line can be read by every user of this host; give it as --%s @FILE, --%s - (standard input) or --%s env:NAME",
		flag, why, flag, flag, flag)
}
