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

// answerForm answers peers that want to form or join and have proved the
// shared key of an id, when this peer is a member.
func (c *Cluster) answerForm(ctx context.Context, key string, req formRequest) formReply {
	if s := c.store.View().SpentKey(key); s != nil {
		if _, said := c.saidSpent.LoadOrStore(key, true); !said {
			c.log.Warn("a peer that has a spent shared key wants to join, it gets no answers", "peer", req.From.ID, "removed", s.GetMember())
		}
		return formReply{Refused: "the shared key of this peer was spent when member " + s.GetMember() +
			" was removed: put the cluster's present one into key_file, here and there"}
	}
	reply := formReply{Self: form.Founder{ID: c.ID()}, Params: formParams{ClusterID: c.ClusterID()}}
	if req.Params.ClusterID != c.ClusterID() {
		reply.Error = "it is a member of cluster " + c.ClusterID()
		return reply
	}
	reply.Member = true
	if req.Kind != "token" {
		return reply
	}
	token, _, err := c.createJoinToken(ctx, formTokenLife, key) // Apply looks again whether the key is spent
	if err != nil {
		reply.Error = err.Error()
		return reply
	}
	c.log.Info("a peer that has the shared key gets a join token", "peer", req.From.ID)
	reply.Token = token
	return reply
}

// formAnswers is how a member's cluster listener answers those who only have
// the shared key.
type formAnswers struct {
	form   *Form
	conf   *tls.Config
	answer func(ctx context.Context, key string, req formRequest) formReply
}

func (s *streams) takeForming(form *Form, answer func(context.Context, string, formRequest) formReply) error {
	conf, err := formServerTLS()
	if err != nil {
		return err
	}
	s.forming = &formAnswers{form: form, conf: conf, answer: answer}
	return nil
}

// configFor gives callers that want to form a configuration of their own;
// everybody else needs a certificate.
func (f *formAnswers) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if slices.Contains(hello.SupportedProtos, protoForm) {
		return f.conf, nil
	}
	return nil, nil
}

func (f *formAnswers) serve(ctx context.Context, conn *tls.Conn, log *slog.Logger) {
	defer conn.NetConn().Close() // no TLS goodbye: it could block
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	keys, err := f.form.keys()
	if err == nil {
		err = formServe(ctx, conn, keys, func(ctx context.Context, req formRequest) formReply { return f.answer(ctx, keys.id, req) })
	}
	if errors.Is(err, errs.Denied) || errors.Is(err, errs.Invalid) {
		log.Warn("refused a caller", "from", conn.RemoteAddr().String(), "err", err)
	}
}
