package cluster

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

const tokenPrefix = "ir1."

// joinToken is what a join token says. The secret is only in the token; the
// cluster stores its digest.
type joinToken struct {
	ID        string   `json:"id"`
	Secret    []byte   `json:"secret"`
	CADigest  string   `json:"ca_digest"`
	ClusterID string   `json:"cluster_id"`
	Addresses []string `json:"addresses"` // api listeners of members
}

func (t joinToken) encode() (string, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return "", errs.New(errs.Internal, "encode join token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b), nil
}

// LogValue keeps the secret out of logs.
func (t joinToken) LogValue() slog.Value { return slog.StringValue("join token " + t.ID) }

// String keeps the secret out of formatted text.
func (t joinToken) String() string { return fmt.Sprintf("join token %s", t.ID) }

// parseToken reads a token; no error quotes it.
func parseToken(s string) (joinToken, error) {
	var t joinToken
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return t, errs.About(errs.Invalid, "join_token", "this is not a join token: it must begin with %q", tokenPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || json.Unmarshal(b, &t) != nil {
		return t, errs.About(errs.Invalid, "join_token", "the join token is damaged: was all of it copied?")
	}
	if t.ID == "" || len(t.Secret) < 16 || len(t.CADigest) != 64 || t.ClusterID == "" || len(t.Addresses) == 0 {
		return t, errs.About(errs.Invalid, "join_token", "the join token is not complete: make a new one")
	}
	return t, nil
}

func secretDigest(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}
