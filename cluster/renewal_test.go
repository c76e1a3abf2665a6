package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/pki"
)

// A peer that runs for years renews its certificate at half of its life, with
// the key that it is known by, for its listeners and on disk at once. A disk
// that refuses costs nothing but a line: the next hour tries again.
func TestCertificateIsRenewedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := openDataDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.close()
		cfg, err := Config{DataDir: dir.path, ID: "p1", Init: true}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.found(cfg, "c1"); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		c := &Cluster{dir: dir, clock: clock.System{}, log: slog.New(slog.NewTextHandler(&log, nil))}
		if c.creds, err = dir.load(time.Now()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.keepCertificate(ctx)
		}()
		defer func() { cancel(); <-ended }()

		first := c.creds.holder.Leaf()
		half := first.NotBefore.Add(first.NotAfter.Sub(first.NotBefore) / 2)
		at := func(when time.Time) {
			time.Sleep(time.Until(when)) // the bubble's clock
			synctest.Wait()
		}
		at(half.Add(-time.Minute))
		if c.creds.holder.Leaf() != first {
			t.Fatal("renewed before half of its life")
		}
		block := dir.file(certFile + ".new")
		if err := os.Mkdir(block, 0o700); err != nil {
			t.Fatal(err)
		}
		at(half.Add(3 * time.Hour))
		if c.creds.holder.Leaf() != first || strings.Count(log.String(), "could not renew") < 2 {
			t.Fatalf("with a disk that refuses: %s", &log)
		}
		if err := os.Remove(block); err != nil {
			t.Fatal(err)
		}
		at(half.Add(5 * time.Hour))
		for range 5 {
			leaf := c.creds.holder.Leaf()
			stored, err := dir.read(certFile)
			if err != nil || !bytes.Equal(stored, leaf.Raw) {
				t.Fatalf("the certificate on disk is another one: %v", err)
			}
			if now := time.Now(); now.Before(leaf.NotBefore) || leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/3 {
				t.Fatalf("at %v the certificate is good until %v", now, leaf.NotAfter)
			}
			if who, err := pki.ParseIdentity(leaf); err != nil || who.Name != "p1" || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
				t.Fatalf("the new certificate is of %v with another key: %v", who, err)
			}
			at(time.Now().AddDate(1, 0, 0))
		}
		if c.creds.holder.Leaf().SerialNumber.Cmp(first.SerialNumber) == 0 || time.Now().Before(first.NotAfter) {
			t.Error("the first certificate is in use beyond its end")
		}
		if _, err := dir.load(time.Now()); err != nil {
			t.Errorf("started anew: %v", err)
		}
	})
}
