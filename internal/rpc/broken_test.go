package rpc

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ironring/ironring/internal/errs"
)

// What the transport says of itself is not for users; the kind tells them
// whether the outcome is known.
func TestBrokenConnection(t *testing.T) {
	for _, st := range []*status.Status{
		status.New(codes.Internal, "stream terminated by RST_STREAM with error code: CANCEL"),
		status.New(codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL"),
		status.New(codes.Unavailable, "error reading from server: EOF"),
	} {
		for sent, kind := range map[bool]errs.Kind{true: errs.Timeout, false: errs.Unreachable} {
			err := fromStatus(st.Err(), sent)
			if !errors.Is(err, kind) || strings.Contains(err.Error(), "RST_STREAM") || strings.Contains(err.Error(), "EOF") {
				t.Errorf("%v (sent %v) becomes %v: %v", st, sent, errs.KindOf(err), err)
			}
		}
	}
}
