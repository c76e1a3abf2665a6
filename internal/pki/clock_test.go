package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

func TestExplainTime(t *testing.T) {
	now := time.Now()
	ca, err := Create("c1", now)
	if err != nil {
		t.Fatal(err)
	}
	csr, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(csr, Identity{Role: RolePeer, Name: "p1"}, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate())
	verify := func(at time.Time) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
	if err := verify(now); err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{-caLife / 2, caLife / 2} {
		err := ExplainTime(fmt.Errorf("handshake: %w", verify(now.Add(off))))
		if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "are the clocks of both hosts right?") || !strings.Contains(err.Error(), leaf.NotAfter.UTC().Format(time.RFC3339)) {
			t.Errorf("%v off: %v", off, err)
		}
	}
	other := errors.New("other")
	if ExplainTime(other) != other || ExplainTime(nil) != nil { //nolint:errorlint // the very same
		t.Error("another error was changed")
	}
}
