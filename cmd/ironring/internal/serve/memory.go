package serve

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much a peer's heap may grow between two collections, in
// percent of what is alive. Most of what is alive is the replicated state,
// which changes little and is read in full by each collection: with Go's
// default of 100 a peer that takes many commands spends a third of its time
// there. The price is memory: at most three times what is alive.
const gcPercent = 200

// tuneGC sets the pace of the collector for the process, unless its
// environment does.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
