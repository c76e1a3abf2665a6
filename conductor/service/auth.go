package service

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// Who may call: on the unix socket whoever may open it (mode 0600); on the
// network the holder of a client or peer certificate of this cluster. Only
// Join works without a certificate: its token is its proof.

// caller names the principal and where the request came from.
func caller(ctx context.Context) (principal, source string) {
	p, ok := peer.FromContext(ctx)
	if ok && p.Addr != nil {
		source = p.Addr.String()
		if p.Addr.Network() == "unix" {
			return "local:socket", "unix"
		}
	}
	if id, err := pki.IdentityFromContext(ctx); err == nil {
		return id.Principal(), source
	}
	return "anonymous", source
}

// authorize is the rule for one call on the api listener.
func authorize(ctx context.Context, method string) error {
	if strings.HasPrefix(method, "/"+api.Join_ServiceDesc.ServiceName+"/") {
		return nil
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil && p.Addr.Network() == "unix" {
		return nil
	}
	id, err := pki.IdentityFromContext(ctx)
	if err != nil {
		return errs.New(errs.Denied, "a client certificate is needed: make one on a peer with `ironring client-cert create NAME`")
	}
	if id.Role != pki.RoleClient && id.Role != pki.RolePeer {
		return errs.New(errs.Denied, "a certificate of role %s may not use this API", id.Role)
	}
	return nil
}

// UnaryAuth guards unary calls of the api listener. It stands behind the
// interceptor that maps errors.
func UnaryAuth(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// StreamAuth guards streams of the api listener.
func StreamAuth(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := authorize(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// member is the peer that calls on the cluster listener.
func member(ctx context.Context) (string, error) {
	id, err := pki.IdentityFromContext(ctx)
	if err != nil || id.Role != pki.RolePeer {
		return "", errs.New(errs.Denied, "only peers may call this")
	}
	return id.Name, nil
}
