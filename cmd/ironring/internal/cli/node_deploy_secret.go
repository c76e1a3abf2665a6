package cli

import (
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal/looks"
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
	if why := looks.SecretURL(arg); why != "" {
		return argvSecret(flag, why)
	}
	return nil
}

func argvSecret(flag, why string) error {
	return errs.About(errs.Invalid, flag,
		"--%s %s, and the command line can be read by every user of this host; give it as --%s @FILE, --%s - (standard input) or --%s env:NAME",
		flag, why, flag, flag, flag)
}
