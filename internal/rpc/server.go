package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/ironring/ironring/internal/errs"
)

// MaxMessage is the largest message that we send or accept: lists and
// inventories are far below it.
const MaxMessage = 16 << 20

// ServerOptions are the options of every gRPC server of ours: errors are
// mapped, a panic in a handler becomes Internal, dead connections are found.
func ServerOptions(log *slog.Logger) []grpc.ServerOption {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unaryServer(log)),
		grpc.ChainStreamInterceptor(streamServer(log)),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 4 * time.Second, PermitWithoutStream: true}),
	}
}

func unaryServer(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
		defer func() { err = finish(log, info.FullMethod, recover(), err) }()
		return next(ctx, req)
	}
}

func streamServer(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer func() { err = finish(log, info.FullMethod, recover(), err) }()
		return next(srv, stream)
	}
}

// finish gives what the handler's caller sees. panicked is the value of
// recover, which must be called in the deferred function itself.
func finish(log *slog.Logger, method string, panicked any, err error) error {
	if panicked != nil {
		log.Error("handler panicked", "method", method, "err", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		return ToStatus(errs.New(errs.Internal, "internal error in %s", method))
	}
	if err == nil {
		return nil
	}
	st := ToStatus(err)
	if c := status.Code(st); c == codes.Internal || c == codes.Unknown {
		log.Error("call failed", "method", method, "err", err)
	}
	return st
}
