package node

import "github.com/ironring/ironring/api"

// KnownCertificate is the fingerprint of the certificate that the BMC at an
// address (host:port) is known by, "" where none is: the one of now, or one from
// before driver_info led elsewhere.
func KnownCertificate(tls *api.BmcTls, address string) string {
	if tls.GetFingerprint() != "" && tls.GetAddress() == address {
		return tls.GetFingerprint()
	}
	for _, c := range tls.GetBefore() {
		if c.GetAddress() == address {
			return c.GetFingerprint()
		}
	}
	return ""
}
