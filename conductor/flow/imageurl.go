package flow

import (
	"net/url"
	"slices"
	"strings"

	"github.com/ironring/ironring/internal/seal"
)

// An image URL may carry secrets: a user and password, or a query such as a
// signature. Then it is sealed whole in the flow's arguments; people see
// it masked (seal.MaskURL), and what comes back from the agent is scrubbed of
// the secret parts before it goes into records, journals or logs.

// SecretURL says whether a URL has parts that must not be shown.
func SecretURL(u *url.URL) bool { return u.User != nil || u.RawQuery != "" || u.ForceQuery }

// secretsOf are the texts that give a URL's secrets away, the longest first.
func secretsOf(raw string) []string {
	u, err := url.Parse(raw)
	if err != nil || !SecretURL(u) {
		return nil
	}
	var out []string
	add := func(texts ...string) {
		for _, t := range texts {
			if len(t) >= 4 { // shorter ones are in every text
				out = append(out, t)
			}
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		add(u.User.String(), u.User.Username(), password, url.PathEscape(password), url.QueryEscape(password))
	}
	add(u.RawQuery)
	for _, part := range strings.Split(u.RawQuery, "&") {
		_, value, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(value)
		if err != nil {
			plain = value
		}
		add(value, plain)
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(out)
}

// scrubbed is an error whose text shows no secret; what it is stays.
type scrubbed struct {
	err  error
	text string
}

func (s *scrubbed) Error() string { return s.text }
func (s *scrubbed) Unwrap() error { return s.err }

// scrub takes secrets out of the text of an error.
func scrub(err error, secrets []string) error {
	if err == nil || len(secrets) == 0 {
		return err
	}
	text := err.Error()
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, seal.Mask)
	}
	if text == err.Error() {
		return err
	}
	return &scrubbed{err, text}
}
