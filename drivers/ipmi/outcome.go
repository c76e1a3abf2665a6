package ipmi

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// errRefused is the cause of a context that ended because nobody listens.
var errRefused = errors.New("connection refused")

// phrases are what ipmitool 1.8.18 and 1.8.19 print, and what they mean. The
// first that fits counts.
var phrases = []struct {
	text    string
	kind    errs.Kind
	subject string
	say     string
}{
	{"RAKP 2 HMAC is invalid", errs.Denied, "", "the BMC refuses the password"},
	{"invalid integrity check value", errs.Denied, "", "the BMC refuses the password"},
	{"unauthorized name", errs.Denied, "", "the BMC does not know the user"},
	{"unauthorized role", errs.Denied, keyLevel, "the user may not have this privilege level"},
	{"invalid role", errs.Denied, keyLevel, "the user may not have this privilege level"},
	{"Requested privilege level exceeds limit", errs.Denied, keyLevel, "the user may not have this privilege level"},
	{"Insufficient privilege level", errs.Denied, keyLevel, "the user lacks the right to do this"},
	{"no matching cipher suite", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"invalid authentication algorithm", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"no matching authentication", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"invalid integrity algorithm", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"no matching integrity", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"invalid confidentiality algorithm", errs.Invalid, keyCipher, "the BMC does not have this cipher suite: set " + keyCipher},
	{"SOL payload already active", errs.Busy, "", errTaken},
	{"SOL payload activation limit", errs.Busy, "", errTaken},
	{"SOL payload already de-activated", errs.Busy, "", "the BMC's console is not open"},
	{"SOL payload disabled", errs.Unsupported, "", "serial over LAN is switched off at the BMC"},
	{"cannot activate SOL payload with", errs.Unsupported, "", "the BMC gives its console only without encryption"},
	{"SOL session on different port", errs.Unsupported, "", "the BMC has its console on another port than the one it is reached at, which ipmitool cannot use"},
	{"insufficient resources", errs.Busy, "", "the BMC has no room for another session"},
	{"Node busy", errs.Busy, "", "the BMC is busy"},
	{"present state", errs.Busy, "", notInThisState},
	{"Invalid data field in request", errs.Unsupported, "", "the BMC does not offer this"},
	{"Invalid command", errs.Unsupported, "", "the BMC does not know this command"},
}

// notInThisState is completion code D5h.
const notInThisState = "the BMC does not do this in the machine's present state"

// outcome says what became of a run that failed.
func outcome(ctx context.Context, g drivers.Grant, set *settings, seen traffic, cause error, text string) error {
	refused := errors.Is(context.Cause(ctx), errRefused)
	ended := drivers.Ended(ctx)
	if refused {
		ended = nil
	}
	if ended == nil && g != nil {
		ended = drivers.CheckGrant(g)
	}
	text = withoutNoise(text)
	for _, p := range phrases {
		if strings.Contains(text, p.text) {
			return errs.About(p.kind, p.subject, "%s", p.say)
		}
	}
	noLogin := strings.Contains(text, "Unable to establish")
	silent := noLogin || strings.Contains(text, "No valid response received") || strings.Contains(text, "Close Session command failed")
	maybe := g != nil && seen.session > 0 // perhaps it has changed something
	switch {
	case ended != nil && errs.KindOf(ended) != errs.Timeout:
		if maybe {
			return errs.New(errs.KindOf(ended), "the outcome is unknown: %w", ended)
		}
		return errs.New(errs.KindOf(ended), "nothing was changed: %w", ended)
	case ended == nil && !refused && !silent:
		return errs.New(errs.Internal, "ipmitool: %s (%v)", lastWords(set, text), cause)
	case maybe:
		return errs.New(errs.Timeout, "the BMC stopped answering, the outcome is unknown")
	case refused:
		return errs.New(errs.Unreachable, "nobody listens at the BMC's address: %w", errRefused)
	case seen.answered == 0:
		return errs.New(errs.Unreachable, "the BMC does not answer")
	case seen.strange == seen.answered:
		return errs.New(errs.Internal, "what answers at the BMC's address does not speak IPMI")
	case seen.session > 0:
		return errs.New(errs.Timeout, "the BMC stopped answering")
	}
	return errs.New(errs.Unreachable, "the BMC stopped answering during the login")
}

// noise are the beginnings of lines that ipmitool -v prints of what it asks of
// every BMC beforehand. Their completion codes are not those of our command.
var noise = []string{
	"Loading IANA PEN Registry", "Running Get PICMG Properties", "Running Get VSO Capabilities",
	"Invalid completion code received", "Discovered", "Get HPM.x Capabilities request failed",
	"Error response", "RAW REQ", "RAW RSP", "tcgetattr",
}

func withoutNoise(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(noise, func(n string) bool { return strings.HasPrefix(line, n) }) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// lastWords is the last line that ipmitool printed, for people. It holds no
// secret that we know.
func lastWords(set *settings, text string) string {
	line := "no message"
	for l := range strings.Lines(text) {
		if l = clean(l); l != "" {
			line = l
		}
	}
	if set.pass != "" {
		line = strings.ReplaceAll(line, set.pass, "******")
	}
	return line
}

// clean makes a text from outside fit for a log: one line, bounded.
func clean(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
	if r := []rune(text); len(r) > 200 {
		return string(r[:200]) + "..."
	}
	return text
}
