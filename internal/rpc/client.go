package rpc

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
)

// DialOptions are the options of every gRPC client of ours, transport
// credentials excepted: errors come back with their kind, a dead server is
// noticed within 15 s, a restarted one is found again within 2 s, and no
// proxy of the environment is used.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(unaryClient),
		grpc.WithChainStreamInterceptor(streamClient),
		grpc.WithStatsHandler(sentHandler{}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// Short delays, because nothing here may call ResetConnectBackoff: in
		// grpc 1.85 it reads a map that a new connection writes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}
}

// sentKey finds the *atomic.Bool that says whether anything of a call reached
// the connection.
type sentKey struct{}

func unaryClient(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var sent atomic.Bool
	err := next(context.WithValue(ctx, sentKey{}, &sent), method, req, reply, cc, opts...)
	return fromStatus(err, sent.Load())
}

func streamClient(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	sent := new(atomic.Bool)
	s, err := next(context.WithValue(ctx, sentKey{}, sent), desc, cc, method, opts...)
	if err != nil {
		return nil, fromStatus(err, sent.Load())
	}
	return &clientStream{ClientStream: s, sent: sent}, nil
}

// clientStream maps the errors of a stream. io.EOF stays what it is.
type clientStream struct {
	grpc.ClientStream
	sent *atomic.Bool
}

func (s *clientStream) RecvMsg(m any) error { return s.mapped(s.ClientStream.RecvMsg(m)) }
func (s *clientStream) SendMsg(m any) error { return s.mapped(s.ClientStream.SendMsg(m)) }

func (s *clientStream) mapped(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fromStatus(err, s.sent.Load())
}

// sentHandler notes the moment at which a call's header is handed to a
// connection. Before it, the server cannot know of the call.
type sentHandler struct{}

func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (sentHandler) HandleConn(context.Context, stats.ConnStats) {}

func (sentHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}
