package pxe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/sources"
)

// Bounds of the HTTP service.
const (
	maxHeader      = 16 << 10
	requestTimeout = 10 * time.Second // to read a request, and to write a small answer
	idleTimeout    = 30 * time.Second
	stopTimeout    = 2 * time.Second // for downloads under way when the peer stops
	indexWait      = 2 * time.Second // for a peer that is behind
)

// httpService gives out scripts, the ramdisk and boot programs.
type httpService struct {
	cfg  Config
	log  *slog.Logger
	line *timeline
	lis  net.Listener
	seen *seen

	homes    *sources.Limits // calls of deployed systems
	programs *programFiles
}

func listenHTTP(cfg Config) (net.Listener, error) {
	if cfg.HTTPListen == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp4", cfg.HTTPListen)
	if err != nil {
		return nil, listenError("http boot", err)
	}
	return l, nil
}

// serve answers requests until ctx ends.
func (s *httpService) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout, // downloads move it on as they get ahead
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(newBounded(s.lis)) }()
	select {
	case err := <-done:
		return fmt.Errorf("http boot: %w", err)
	case <-ctx.Done():
	}
	// Shutdown lets short answers finish; downloads are cut, because iPXE goes
	// on at another peer and the machine must not hold up a stop.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close()
	}
	<-done
	return nil
}

// handler knows a fixed set of paths; the method is GET or HEAD, but for
// phone-homes.
func (s *httpService) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.phoneHome(w, r) {
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		path := r.URL.Path
		if _, ok := ramdiskFiles[path]; ok {
			s.ramdisk(w, r)
		} else if digest, ok := strings.CutPrefix(path, bootpath.Artifact); ok {
			s.artifact(w, r, digest)
		} else if name, ok := strings.CutPrefix(path, bootpath.Media); ok {
			s.medium(w, r, name)
		} else if mac, ok := strings.CutPrefix(path, pathBoot); ok {
			s.script(w, r, mac)
		} else if name, ok := strings.CutPrefix(path, pathIPXE); ok {
			s.program(w, r, name)
		} else {
			http.NotFound(w, r)
		}
	})
}

// script answers /boot/<mac>.
func (s *httpService) script(w http.ResponseWriter, r *http.Request, name string) {
	mac, ok := ParseMAC(name)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if !s.reach(w, r, mac) {
		return
	}
	v := s.cfg.Store.View()
	from := remoteOf(r)
	rec := RecordOn(v, mac, v.NetworkFor(from))
	if !rec.Known {
		http.NotFound(w, r)
		return
	}
	m := machine{mac: mac, nodeID: rec.NodeID, nonce: rec.Nonce}
	say := func(answer string) {
		s.line.add(m, kindHTTP, stageScript, fmt.Sprintf("%s %s from %s: %s", r.Method, pathBoot+mac, from, answer))
	}
	if rec.Target == api.BootTarget_BOOT_RAMDISK {
		if s.cfg.stale() && !underWork(rec.State) {
			say("refused, this peer has no contact with a leader and the node was not deploying, cleaning or inspecting")
			http.Error(w, "this peer has no contact with a leader", http.StatusServiceUnavailable)
			return
		}
		if key := r.URL.Query().Get(keyParam); opens(key, rec, from) {
			s.seen.saw(from, mac)
		} else if !allocatedTo(v, from, mac) {
			s.log.Warn("boot script refused: the machine asks from an address that is not its own", "node", rec.NodeID, "mac", mac, "from", from)
			say("refused, the address is not the one allocated to this MAC")
			http.Error(w, "not from this address", http.StatusForbidden)
			return
		}
	}
	body := rec.Script(s.cfg.line())
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	// Before the machine has it: what it asks for next comes later in the timeline.
	say("script for " + targetName(rec))
	if r.Method == http.MethodGet {
		if _, err := w.Write(body); err != nil {
			say("connection lost")
		}
	}
}

func targetName(rec BootRecord) string {
	switch {
	case rec.Target == api.BootTarget_BOOT_RAMDISK:
		return "the ramdisk"
	case rec.Reason != "":
		return "local boot: " + rec.Reason
	}
	return "local boot"
}

// reach waits until this peer has applied the index that the request names.
// When that takes too long it sends the machine to another peer, once.
func (s *httpService) reach(w http.ResponseWriter, r *http.Request, mac string) bool {
	q := r.URL.Query()
	if !q.Has("index") {
		return true
	}
	index, err := strconv.ParseUint(q.Get("index"), 10, 64)
	if err != nil {
		http.Error(w, "index must be a number", http.StatusBadRequest)
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), indexWait)
	defer cancel()
	if s.cfg.Store.WaitIndex(ctx, index) == nil {
		return true
	}
	if !q.Has("sent") {
		for _, m := range ranked(s.cfg.Store.View().Members(), mac) {
			if _, _, ok := validAddress(m.GetBootAddress()); ok && m.GetId() != s.cfg.Self {
				again := url.Values{"index": {strconv.FormatUint(index, 10)}, "sent": {"1"}}
				if key := q.Get(keyParam); key != "" {
					again.Set(keyParam, key)
				}
				u := url.URL{Scheme: "http", Host: m.GetBootAddress(), Path: pathBoot + mac,
					RawQuery: again.Encode()}
				http.Redirect(w, r, u.String(), http.StatusTemporaryRedirect)
				return false
			}
		}
	}
	w.Header().Set("Retry-After", "2")
	http.Error(w, "this peer has not applied that index yet", http.StatusServiceUnavailable)
	return false
}

// ramdisk answers the kernel and the initramfs, with ranges.
func (s *httpService) ramdisk(w http.ResponseWriter, r *http.Request) {
	part := ramdiskFiles[r.URL.Path]
	from := remoteOf(r)
	m := s.seen.machine(s.cfg.Store.View(), from)
	say := func(format string, args ...any) {
		s.line.add(m, kindHTTP, part.stage, fmt.Sprintf("%s %s from %s: ", r.Method, r.URL.Path, from)+fmt.Sprintf(format, args...))
	}
	if s.cfg.RamdiskDir == "" {
		say("no ramdisk directory is configured at this peer")
		http.Error(w, "no ramdisk directory is configured at this peer", http.StatusServiceUnavailable)
		return
	}
	f, st, err := openRegular(filepath.Join(s.cfg.RamdiskDir, part.file))
	if err != nil {
		s.log.Warn("ramdisk file cannot be served", "file", part.file, "dir", s.cfg.RamdiskDir, "err", err)
		why := "cannot be read"
		if errors.Is(err, fs.ErrNotExist) {
			why = "is missing"
		}
		say("%s %s at this peer", part.file, why)
		http.Error(w, part.file+" "+why+" at this peer", http.StatusServiceUnavailable)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodHead {
		http.ServeContent(w, r, part.file, st.ModTime(), f)
		say("%d bytes", st.Size())
		return
	}
	send(w, r, part.file, st.ModTime(), f, say)
}

// send answers a GET with a file, or the range that is asked for, and says how
// it goes.
func send(w http.ResponseWriter, r *http.Request, name string, changed time.Time, f io.ReadSeeker, say func(string, ...any)) {
	say("sending")
	d := newDownload(w, func(sent int64, took time.Duration) {
		say("%d bytes sent in %.1f s, going on", sent, took.Seconds())
	})
	http.ServeContent(d, r, name, changed, f)
	if d.err != nil {
		say("broken off after %d bytes in %.1f s", d.sent, time.Since(d.start).Seconds())
		return
	}
	say("%d, %d bytes sent in %.1f s", d.status, d.sent, time.Since(d.start).Seconds())
}

// program answers /ipxe/<name>, for firmware that boots over HTTP.
func (s *httpService) program(w http.ResponseWriter, r *http.Request, name string) {
	m := s.seen.machine(s.cfg.Store.View(), remoteOf(r))
	data, err := s.programs.read(name)
	if err != nil {
		s.line.add(m, kindHTTP, stageTFTP, fmt.Sprintf("%s %s: %v", r.Method, quoteName(r.URL.Path), err))
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/efi")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	s.line.add(m, kindHTTP, stageTFTP, fmt.Sprintf("%s %s: %d bytes", r.Method, r.URL.Path, len(data)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(data) // a lost client asks again
	}
}

// allocatedTo says whether an address is the one that a MAC has.
func allocatedTo(v *fsm.View, ip netip.Addr, mac string) bool {
	n := v.NetworkFor(ip)
	if n == nil {
		return false
	}
	has, err := netip.ParseAddr(v.Address(n.GetName(), mac).GetIp())
	return err == nil && has == ip
}

func remoteOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
