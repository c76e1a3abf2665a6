package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/big"
	"time"

	"github.com/ironring/ironring/cluster/form"
	"github.com/ironring/ironring/internal/errs"
)

// Peers that form a cluster have no certificates yet, only the shared key.
// They speak TLS 1.3 with certificates that prove nothing and are made for one
// process, and then both prove the key: each sends an HMAC, under a key that
// HKDF derives from the shared one for its side, of keying material exported
// from this very TLS connection (RFC 8446, 7.5). Somebody in the middle has
// two connections with different keying material, and nothing to pass on.

const (
	protoForm   = "ironring-form"
	formLabel   = "EXPORTER-ironring-form-v1"
	formTimeout = 3 * time.Second
	// formTokenTimeout: making a token needs a leader.
	formTokenTimeout = 12 * time.Second
	maxFormMessage   = 64 << 10
)

func formProof(key []byte, cs tls.ConnectionState) ([]byte, error) {
	material, err := cs.ExportKeyingMaterial(formLabel, nil, sha256.Size)
	if err != nil {
		return nil, errs.New(errs.Internal, "bind the proof to the connection: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(material)
	return mac.Sum(nil), nil
}

// formServerTLS is for callers that only have the shared key.
func formServerTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "make key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ironring forming"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, errs.New(errs.Internal, "make certificate: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoForm}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}

// formClientTLS trusts any certificate: the proofs are what counts.
func formClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoForm},
		InsecureSkipVerify: true, // see above
	}
}

// formRequest is what a peer asks another; one for each connection.
type formRequest struct {
	Kind    string       `json:"kind"` // hello, prepare, accept, token
	Params  formParams   `json:"params"`
	From    form.Founder `json:"from"`
	Ballot  form.Ballot  `json:"ballot"`
	Founder form.Founder `json:"founder"`
}

// formParams must be the same in the files of all peers while they form.
type formParams struct {
	ClusterID string   `json:"cluster_id"`
	Expect    int      `json:"expect"`
	Join      []string `json:"join"`
}

type formReply struct {
	Self    form.Founder `json:"self"`
	Member  bool         `json:"member,omitempty"` // of the cluster that the request names
	Params  formParams   `json:"params"`
	Promise form.Promise `json:"promise"`
	OK      bool         `json:"ok,omitempty"`
	Token   string       `json:"token,omitempty"`
	Error   string       `json:"error,omitempty"`
	// Refused is why this peer answers nothing to who proved that key; then the
	// rest is empty.
	Refused string `json:"refused,omitempty"`
}

// formAsk asks the peer at an address.
func formAsk(ctx context.Context, dial dialFunc, keys formKeys, address string, req formRequest) (*formReply, error) {
	limit := formTimeout
	if req.Kind == "token" {
		limit = formTokenTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, errs.New(errs.Unreachable, "call %s: %w", address, err)
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	conn := tls.Client(raw, formClientTLS())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errs.New(errs.Unreachable, "call %s: %w", address, err)
	}
	cs := conn.ConnectionState()
	mine, err := formProof(keys.client, cs)
	if err != nil {
		return nil, err
	}
	theirs, err := formProof(keys.server, cs)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(mine); err != nil {
		return nil, errs.New(errs.Unreachable, "call %s: %w", address, err)
	}
	got := make([]byte, len(theirs))
	if _, err := io.ReadFull(conn, got); err != nil {
		return nil, errs.New(errs.Denied, "call %s: it hung up: is its key_file the same, and set? (%w)", address, err)
	}
	if !hmac.Equal(got, theirs) {
		return nil, errs.New(errs.Denied, "call %s: it does not have the key of key_file", address)
	}
	if err := writeFormMessage(conn, req); err != nil {
		return nil, errs.New(errs.Unreachable, "call %s: %w", address, err)
	}
	reply := &formReply{}
	if err := readFormMessage(conn, reply); err != nil {
		return nil, errs.New(errs.Unreachable, "call %s: %w", address, err)
	}
	return reply, nil
}

// formServe answers one caller over a connection whose handshake is done.
func formServe(ctx context.Context, conn *tls.Conn, keys formKeys, answer func(context.Context, formRequest) formReply) error {
	ctx, cancel := context.WithTimeout(ctx, formTokenTimeout)
	defer cancel()
	_ = conn.SetDeadline(time.Now().Add(formTimeout))
	cs := conn.ConnectionState()
	theirs, err := formProof(keys.client, cs)
	if err != nil {
		return err
	}
	got := make([]byte, len(theirs))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !hmac.Equal(got, theirs) {
		return errs.New(errs.Denied, "the caller does not have the key of key_file")
	}
	mine, err := formProof(keys.server, cs)
	if err != nil {
		return err
	}
	if _, err := conn.Write(mine); err != nil {
		return err
	}
	var req formRequest
	if err := readFormMessage(conn, &req); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(formTokenTimeout))
	return writeFormMessage(conn, answer(ctx, req))
}

func writeFormMessage(w io.Writer, m any) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	return err
}

func readFormMessage(r io.Reader, m any) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFormMessage {
		return errs.New(errs.Invalid, "a message of %d bytes", n)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		return err
	}
	return json.Unmarshal(raw, m)
}
