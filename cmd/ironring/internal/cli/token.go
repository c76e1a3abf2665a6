package cli

import (
	"os"

	"github.com/ironring/ironring/internal/errs"
)

// tokenEnv is where a join token is looked for when no file was named.
const tokenEnv = "IRONRING_JOIN_TOKEN"

// joinToken reads a join token from a file, from standard input ("-"), or
// from the environment; "" when there is none. It never comes by argv, which
// every user of the host can read.
func (f *Factory) joinToken(path string) (string, error) {
	switch path {
	case "":
		return f.Getenv(tokenEnv), nil
	case "-":
		return readValue(f.In, "join token")
	}
	file, err := os.Open(path)
	if err != nil {
		// What looks like a token is not repeated: it would end up in logs.
		if looksLikeToken(path) {
			return "", errs.New(errs.Invalid, "a join token must not stand on the command line: put it into a file, give - for standard input, or set %s", tokenEnv)
		}
		return "", errs.New(errs.Invalid, "join token: %w", err)
	}
	defer file.Close()
	return readValue(file, "join token")
}

func looksLikeToken(s string) bool { return len(s) > 4 && s[:4] == "ir1." }
