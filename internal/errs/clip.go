package errs

import "strings"

// Clip bounds what a message repeats of a value from outside: 64 bytes of it.
func Clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
