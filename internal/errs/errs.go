// Package errs holds the kinds of error that Ironring distinguishes.
//
// A kind is decided where the error is born and mapped to gRPC codes, HTTP
// status and exit codes in exactly one place each (internal/rpc, the HTTP
// middleware, main). Kinds are compared with errors.Is, never by text:
//
//	if errors.Is(err, errs.NotFound) { ... }
//
// Messages are lower case and say what could not be done and to whom. They
// never hold credentials.
package errs

import (
	"errors"
	"fmt"
)

// Kind is a class of error; the zero value is Internal. A Kind is itself an
// error, so that it can stand on the right of errors.Is.
type Kind int

// The kinds. Their names travel in api.Failure.kind and must not change.
const (
	Internal    Kind = iota // a defect or something unforeseen
	Invalid                 // the request can never be right
	NotFound                // no such record
	Exists                  // a record with that identity is there already
	WrongState              // the node's state does not allow it
	Locked                  // another holder has the node's lock
	Fenced                  // the token or lease is no longer current
	Conflict                // compare-and-set failed
	NotOwner                // ask another peer
	NotLeader               // ask the leader
	NoQuorum                // no leader can be reached
	Unsupported             // this build, driver or machine cannot do it
	Busy                    // a bound was reached; later it may work
	Denied                  // not allowed, or credentials refused
	Timeout                 // no answer in time: the outcome is unknown
	Unreachable             // nothing was sent: the outcome is known
)

var names = [...]string{
	"internal", "invalid", "not_found", "exists", "wrong_state", "locked",
	"fenced", "conflict", "not_owner", "not_leader", "no_quorum",
	"unsupported", "busy", "denied", "timeout", "unreachable",
}

// String is the kind's name on the wire.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(names) {
		return names[Internal]
	}
	return names[k]
}

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return k.String() }

// ParseKind is the inverse of String; unknown names are Internal.
func ParseKind(s string) Kind {
	for i, n := range names {
		if n == s {
			return Kind(i)
		}
	}
	return Internal
}

// Error is an error with a kind and a subject.
type Error struct {
	Kind    Kind
	Subject string // what it is about: a node's id, a field's name; may be empty
	Msg     string
	Err     error // the cause; may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// New makes an error of a kind from a format. %w records a cause.
func New(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if errors.Unwrap(err) == nil {
		return &Error{Kind: kind, Msg: err.Error()}
	}
	return &Error{Kind: kind, Err: err}
}

// About is New with a subject, which travels beside the message.
func About(kind Kind, subject, format string, args ...any) error {
	err := New(kind, format, args...)
	err.(*Error).Subject = subject //nolint:errorlint // New returns an *Error, unwrapped
	return err
}

// KindOf is the kind of the outermost Error in err's chain; Internal when
// there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}

// SubjectOf is the subject of the outermost Error that has one.
func SubjectOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Subject != "" {
			return e.Subject
		}
		err = e.Err
	}
	return ""
}
