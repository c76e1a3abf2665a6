package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"

	"github.com/ironring/ironring/cluster/form"
	"github.com/ironring/ironring/internal/errs"
)

// answerForm answers peers that want to form or join, when this peer is a
// member.
func (c *Cluster) answerForm(ctx context.Context, req formRequest) formReply {
	reply := formReply{Self: form.Founder{ID: c.ID()}, Params: formParams{ClusterID: c.ClusterID()}}
	if req.Params.ClusterID != c.ClusterID() {
		reply.Error = "it is a member of cluster " + c.ClusterID()
		return reply
	}
	reply.Member = true
	if req.Kind != "token" {
		return reply
	}
	token, _, err := c.CreateJoinToken(ctx, formTokenLife)
	if err != nil {
		reply.Error = err.Error()
		return reply
	}
	c.log.Info("a peer that has the shared key gets a join token", "peer", req.From.ID)
	reply.Token = token
	return reply
}

// forming is how a member's cluster listener answers those who only have the
// shared key.
type forming struct {
	keys   formKeys
	conf   *tls.Config
	answer func(context.Context, formRequest) formReply
}

func (s *streams) takeForming(key []byte, answer func(context.Context, formRequest) formReply) error {
	keys, err := newFormKeys(key)
	if err != nil {
		return err
	}
	conf, err := formServerTLS()
	if err != nil {
		return err
	}
	s.forming = &forming{keys: keys, conf: conf, answer: answer}
	return nil
}

// configFor gives callers that want to form a configuration of their own;
// everybody else needs a certificate.
func (f *forming) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if slices.Contains(hello.SupportedProtos, protoForm) {
		return f.conf, nil
	}
	return nil, nil
}

func (f *forming) serve(ctx context.Context, conn *tls.Conn, log *slog.Logger) {
	defer conn.NetConn().Close() // no TLS goodbye: it could block
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	if err := formServe(ctx, conn, f.keys, f.answer); errors.Is(err, errs.Denied) {
		log.Warn("refused a caller", "from", conn.RemoteAddr().String(), "err", err)
	}
}
