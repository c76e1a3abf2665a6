package seal

import "net/url"

// MaskURL is a URL that may be shown: user and query, which may hold secrets,
// are masked, a fragment is dropped. What is no URL is masked whole.
func MaskURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return Mask
	}
	out := u.Scheme + "://"
	if u.User != nil {
		out += Mask + "@"
	}
	out += u.Host + u.EscapedPath()
	if u.RawQuery != "" {
		out += "?" + Mask
	}
	return out
}
