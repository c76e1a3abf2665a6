package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Kind is a class of error. It is an error itself, for errors.Is.
type Kind = errs.Kind

// The kinds of error.
const (
	Internal    = errs.Internal    // a defect or something unforeseen
	Invalid     = errs.Invalid     // the request can never be right
	NotFound    = errs.NotFound    // no such record
	Exists      = errs.Exists      // a record with that identity is there already
	WrongState  = errs.WrongState  // the node's state does not allow it
	Locked      = errs.Locked      // another holder has the node's lock
	Fenced      = errs.Fenced      // the token or lease is no longer current
	Conflict    = errs.Conflict    // the record has another revision by now
	NotOwner    = errs.NotOwner    // no peer that could do it was reached
	NotLeader   = errs.NotLeader   // no leader was reached
	NoQuorum    = errs.NoQuorum    // the cluster has no leader
	Unsupported = errs.Unsupported // this build, driver or machine cannot do it
	Busy        = errs.Busy        // a bound was reached; later it may work
	Denied      = errs.Denied      // not allowed
	Timeout     = errs.Timeout     // no answer in time: the outcome is unknown
	Unreachable = errs.Unreachable // no peer was reached: nothing happened
)

// KindOf is the kind of an error of this package; Internal for others.
func KindOf(err error) Kind { return errs.KindOf(err) }

// SubjectOf is what an error is about: a node's id, a field's name; "" when
// it does not say.
func SubjectOf(err error) string { return errs.SubjectOf(err) }

// WorkFailed is what Wait returns when the work ended, but not well.
type WorkFailed struct {
	Node   *api.Node // as it is now
	Flow   *api.Flow // that failed; nil when it is no longer known
	Reason string
}

// Error says which node is where, and why.
func (e *WorkFailed) Error() string {
	name := e.Node.GetName()
	if name == "" {
		name = e.Node.GetId()
	}
	return fmt.Sprintf("node %s is in state %s: %s", name, stateName(e.Node.GetState()), e.Reason)
}

// Is makes WorkFailed an error of kind WrongState.
func (e *WorkFailed) Is(target error) bool { return target == error(WrongState) }

// plain is an error with a text for people: gRPC wraps the reason why a
// connection failed in words of its own.
type plain struct {
	text string
	err  error
}

func (e *plain) Error() string { return e.text }
func (e *plain) Unwrap() error { return e.err }

// atPeer says at which peer an error was met.
func atPeer(address string, err error) error {
	text := err.Error()
	if _, inner, ok := strings.Cut(text, `desc = "transport: `); ok {
		text = strings.TrimSuffix(inner, `"`)
		text = strings.TrimPrefix(text, "Error while dialing: ")
		text = strings.TrimPrefix(text, "dial tcp "+address+": ")
		text = strings.TrimPrefix(text, "dial unix "+strings.TrimPrefix(address, "unix:")+": ")
	}
	return &plain{"peer " + address + ": " + text, err}
}

// tried is the failure of every peer that was asked.
type tried struct {
	last error // its kind is the kind of the whole
	all  []error
}

func (t *tried) Error() string {
	if len(t.all) == 1 {
		return t.all[0].Error()
	}
	return fmt.Sprintf("none of %d peers could:\n%v", len(t.all), errors.Join(t.all...))
}

func (t *tried) Unwrap() error { return t.last }
