package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// imageServer serves one image, slowly, and counts what each machine took.
type imageServer struct {
	addr     string
	body     []byte
	marker   string
	checksum string
	rate     int
	srv      *http.Server
	done     chan struct{}

	mu    sync.Mutex
	bytes map[string]int64 // by machine
}

// startImages makes an image with a boot sector and serves it.
func startImages(at netip.Addr, mib, rate int) (*imageServer, error) {
	ln, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	s := &imageServer{addr: ln.Addr().String(), rate: rate, bytes: map[string]int64{}, done: make(chan struct{})}
	s.body = make([]byte, mib<<20)
	seed := rand.Uint64()
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = src.Read(s.body) // never fails
	s.marker = fmt.Sprintf("IRONRING LAB IMAGE %016x", seed)
	copy(s.body, s.marker+"\x00")
	clear(s.body[446:510]) // no partitions, also not by chance
	s.body[510], s.body[511] = 0x55, 0xaa
	sum := sha256.Sum256(s.body)
	s.checksum = "sha256:" + hex.EncodeToString(sum[:])
	s.srv = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(ln) // ends by stop
	}()
	return s, nil
}

func (s *imageServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.srv.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = s.srv.Close() // what is still read is no longer wanted
	}
	<-s.done
}

// url is the image for one machine.
func (s *imageServer) url(machine string) string {
	return fmt.Sprintf("http://%s/image.raw?machine=%s", s.addr, machine)
}

// served is how many bytes a machine took.
func (s *imageServer) served(machine string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes[machine]
}

func (s *imageServer) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/image.raw" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+s.checksum+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	slow := &slowWriter{ResponseWriter: w, ctx: r.Context(), rate: s.rate, count: func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.bytes[r.URL.Query().Get("machine")] += int64(n)
	}}
	http.ServeContent(slow, r, "", time.Time{}, bytes.NewReader(s.body))
}

// slowWriter hands a response out at a rate.
type slowWriter struct {
	http.ResponseWriter
	ctx   context.Context
	rate  int
	count func(int)
}

const chunk = 32 << 10

func (w *slowWriter) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := min(len(p), chunk)
		m, err := w.ResponseWriter.Write(p[:n])
		total += m
		w.count(m)
		if err != nil {
			return total, err
		}
		p = p[n:]
		t := time.NewTimer(time.Duration(n) * time.Second / time.Duration(w.rate))
		select {
		case <-t.C:
		case <-w.ctx.Done():
			t.Stop()
			return total, io.ErrClosedPipe
		}
	}
	return total, nil
}
