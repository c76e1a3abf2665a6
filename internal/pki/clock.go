package pki

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// ExplainTime adds to the error of a handshake what a certificate outside of
// its time mostly means. Other errors stay as they are.
func ExplainTime(err error) error {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return err
	}
	return errs.New(errs.Denied, "the other side's certificate is valid from %s to %s, but not by this host's clock: are the clocks of both hosts right? %w",
		invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339), err)
}
