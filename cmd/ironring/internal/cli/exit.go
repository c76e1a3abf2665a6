package cli

import (
	"errors"
	"fmt"

	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/errs"
)

// exitCodes is the only mapping from kinds of error to exit codes. 1 is any
// other failure; 2 is only used by `cluster status`: no quorum.
var exitCodes = map[errs.Kind]int{
	errs.Internal:    1,
	errs.Invalid:     3,
	errs.NotFound:    4,
	errs.Exists:      5,
	errs.WrongState:  6,
	errs.Locked:      7,
	errs.Fenced:      7,
	errs.Conflict:    7,
	errs.NotOwner:    8,
	errs.NotLeader:   8,
	errs.NoQuorum:    8,
	errs.Unreachable: 8,
	errs.Timeout:     9,
	errs.Denied:      10,
	errs.Busy:        11,
	errs.Unsupported: 12,
}

// interrupted is the exit code after SIGINT or SIGTERM, as shells have it.
const interrupted = 130

// removedStatus is what a peer ends with that was removed from its cluster:
// starting it again is of no use.
const removedStatus = 13

const exitHelp = `Exit codes: 0 done; 1 failed; 3 invalid request; 4 not found; 5 exists already; 6 not in this state;
7 locked or changed meanwhile; 8 no peer or no leader could be reached; 9 no answer in time, outcome unknown;
10 denied; 11 busy; 12 not supported; 13 this peer was removed from its cluster. "cluster status": 0 healthy, 1 degraded, 2 no quorum.
Errors are text on standard error, with -o json too: there the exit code says what kind of error it was.`

// exitStatus ends the program with a code of its own; what there is to say
// has been printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is what the process ends with after err.
func ExitCode(err error) int {
	var own exitStatus
	var failed *client.WorkFailed
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(*cluster.RemovedError)):
		return removedStatus
	case errors.As(err, &own):
		return int(own)
	case errors.As(err, &failed):
		// The request was right; the work went wrong.
		return 1
	}
	return exitCodes[errs.KindOf(err)]
}
