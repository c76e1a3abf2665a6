package cli

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/ironring/ironring/internal/errs"
)

// evidenceFlags say what must be seen of a deployed system before its node is
// active.
type evidenceFlags struct {
	policy, token, pattern string
	timeout                time.Duration
}

func (e *evidenceFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&e.policy, "evidence", "", "what must be seen before the node is active: `POLICY` none, phone_home, port:PORT, port:ADDRESS:PORT or console")
	fl.StringVar(&e.pattern, "console-pattern", "", "with --evidence console: `REGEXP` (RE2) that is to be found in a line on the serial console, such as 'login:'")
	fl.DurationVar(&e.timeout, "evidence-timeout", 0, "how long to wait for it (default 20m)")
	fl.StringVar(&e.token, "phone-home-token", "", "`@FILE` with the token in the URL that the system of the one node calls, POST http://PEER/phone-home/TOKEN; - for standard input, env:NAME; if left out one is made for the config drive")
}

// into adds what was given to the arguments of a deploy; one says that a single
// node is meant.
func (e *evidenceFlags) into(doc map[string]any, v *values, one bool) error {
	switch {
	case e.policy == "console" && e.pattern == "":
		return errs.New(errs.Invalid, "--evidence console needs --console-pattern REGEXP")
	case e.policy == "console":
		doc["evidence"] = "console:" + e.pattern
	case e.pattern != "":
		return errs.New(errs.Invalid, "--console-pattern is of use with --evidence console only")
	case e.policy != "":
		doc["evidence"] = e.policy
	}
	if e.token != "" {
		if !one {
			return errs.About(errs.Invalid, "phone-home-token",
				"--phone-home-token is for one node: with one token for several, the call of one would prove another; leave it out, and each config drive gets a token of its own in its meta data (phone_home_urls)")
		}
		token, err := v.secret("phone-home-token", e.token)
		if err != nil {
			return err
		}
		doc["phone_home_token"] = token
	}
	if e.timeout != 0 {
		if e.timeout < time.Second {
			return errs.New(errs.Invalid, "--evidence-timeout: at least 1s")
		}
		doc["evidence_timeout"] = int(e.timeout / time.Second)
	}
	return nil
}
