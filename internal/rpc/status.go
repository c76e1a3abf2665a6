package rpc

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of what an error says on the wire; the log has all of it.
const (
	maxMessage = 2048
	maxSubject = 256
)

// kindCodes is the only mapping from kinds to gRPC codes.
var kindCodes = map[errs.Kind]codes.Code{
	errs.Internal:    codes.Internal,
	errs.Invalid:     codes.InvalidArgument,
	errs.NotFound:    codes.NotFound,
	errs.Exists:      codes.AlreadyExists,
	errs.WrongState:  codes.FailedPrecondition,
	errs.Locked:      codes.Aborted,
	errs.Fenced:      codes.Aborted,
	errs.Conflict:    codes.Aborted,
	errs.NotOwner:    codes.Unavailable,
	errs.NotLeader:   codes.Unavailable,
	errs.NoQuorum:    codes.Unavailable,
	errs.Unreachable: codes.Unavailable,
	errs.Unsupported: codes.Unimplemented,
	errs.Busy:        codes.ResourceExhausted,
	errs.Denied:      codes.PermissionDenied,
	errs.Timeout:     codes.DeadlineExceeded,
}

// codeKinds is for answers without a Failure: from gRPC itself, or from a
// program that is not ours.
var codeKinds = map[codes.Code]errs.Kind{
	codes.InvalidArgument:    errs.Invalid,
	codes.NotFound:           errs.NotFound,
	codes.AlreadyExists:      errs.Exists,
	codes.FailedPrecondition: errs.WrongState,
	codes.Aborted:            errs.Conflict,
	codes.Unimplemented:      errs.Unsupported,
	codes.ResourceExhausted:  errs.Busy,
	codes.PermissionDenied:   errs.Denied,
	codes.Unauthenticated:    errs.Denied,
	codes.OutOfRange:         errs.Invalid,
	codes.DeadlineExceeded:   errs.Timeout,
	codes.Canceled:           errs.Timeout,
	codes.Unavailable:        errs.Timeout, // perhaps cut after the request had gone
}

// ToStatus turns an error into what a handler returns to gRPC: a code by kind
// and a Failure as detail. A status that has a Failure already passes as it is.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	var typed *errs.Error
	isTyped := errors.As(err, &typed)
	if st, ok := status.FromError(err); ok && !isTyped {
		return st.Err()
	}
	kind := errs.KindOf(err)
	code := kindCodes[kind]
	switch {
	case isTyped:
	case errors.Is(err, context.Canceled):
		kind, code = errs.Timeout, codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		kind, code = errs.Timeout, codes.DeadlineExceeded
	}
	text := err.Error()
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "..."
	}
	subject := errs.SubjectOf(err)
	if len(subject) > maxSubject { // the details travel in a header
		subject = strings.ToValidUTF8(subject[:maxSubject], "")
	}
	st := status.New(code, text)
	with, derr := st.WithDetails(&api.Failure{
		Kind: kind.String(), Subject: subject, Message: text,
	})
	if derr != nil { // only for code OK or an unmarshallable detail: neither happens here
		return st.Err()
	}
	return with.Err()
}

// FromStatus turns what a gRPC call returned into an error of a kind. Without
// a Failure, Unavailable, Canceled and DeadlineExceeded become errs.Timeout:
// the outcome is unknown. Clients made with DialOptions know more: see
// the package comment.
func FromStatus(err error) error { return fromStatus(err, true) }

func fromStatus(err error, sent bool) error {
	if err == nil {
		return nil
	}
	var typed *errs.Error
	if errors.As(err, &typed) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, d := range st.Details() {
		if f, ok := d.(*api.Failure); ok {
			return FromFailure(f)
		}
	}
	kind, known := codeKinds[st.Code()]
	if !known {
		kind = errs.Internal
	}
	text := st.Message()
	if st.Code() == codes.ResourceExhausted && strings.Contains(text, "message larger than max") {
		kind = errs.Invalid // gRPC's own words, of either side; it will never be taken
	}
	if broken(st) {
		kind, text = errs.Timeout, "the connection broke before the answer came"
	}
	if kind == errs.Timeout && !sent {
		kind = errs.Unreachable
	}
	switch st.Code() {
	case codes.Canceled:
		return errs.New(kind, "%s: %w", text, context.Canceled)
	case codes.DeadlineExceeded:
		return errs.New(kind, "%s: %w", text, context.DeadlineExceeded)
	}
	return errs.New(kind, "%s", text)
}

// broken reports whether a status is the transport's own way of saying that a
// connection ended in the middle of a call.
func broken(st *status.Status) bool {
	for _, text := range []string{"RST_STREAM", "error reading from server", "transport is closing", "connection is draining"} {
		if strings.Contains(st.Message(), text) {
			return true
		}
	}
	return false
}

// FromFailure is the error that a Failure stands for; nil for nil.
func FromFailure(f *api.Failure) error {
	if f == nil {
		return nil
	}
	return errs.About(errs.ParseKind(f.GetKind()), f.GetSubject(), "%s", f.GetMessage())
}

// ToFailure is the inverse of FromFailure.
func ToFailure(err error) *api.Failure {
	if err == nil {
		return nil
	}
	return &api.Failure{Kind: errs.KindOf(err).String(), Subject: errs.SubjectOf(err), Message: err.Error()}
}
