// Package version says which build this is. The value is set by the linker
// (-ldflags "-X github.com/ironring/ironring/internal/version.value=v1.2.3");
// without it, it comes from what the Go command recorded. It never changes
// while the program runs.
package version

import "runtime/debug"

// value is set by the linker.
var value string

// FeatureLevel is the highest feature level that this build can speak.
const FeatureLevel = 1

// String is the version of this build.
func String() string {
	if value != "" {
		return value
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if rev != "" {
		return "dev-" + rev + dirty
	}
	return "dev"
}
