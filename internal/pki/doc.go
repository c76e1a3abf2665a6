// Package pki is the cluster's own certificate authority and the TLS settings
// of every connection between peers, clients and agents.
//
// Invariants:
//   - TLS 1.3 only; every certificate chains to the one CA of its cluster.
//   - An identity is a URI in the certificate, never its common name:
//     ironring://CLUSTER/peer/ID, /client/NAME or /agent/NODE/NONCE.
//   - A peer's certificate has the DNS name ServerName, which every dialer
//     asks for; which peer it is, is checked by the identity (PeerTLS).
//   - Certificates are backdated by 24 h, because machines boot with clocks
//     that are behind.
//   - Servers send the CA's certificate along, so that an agent or a joiner
//     that knows only the CA's digest can verify the chain (VerifyByDigest).
//
// Keys are ECDSA P-256. Everything is safe for concurrent use. Start with CA.
package pki
