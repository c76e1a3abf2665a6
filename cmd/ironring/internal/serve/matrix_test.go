package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// What became of a call.
const (
	refused = "refused" // in the handshake
	absent  = "absent"  // there is no such service on the listener
	denied  = "denied"  // by the method or what stands before it
	reached = "reached" // the method ran, whatever it said to an empty request
)

// allowed is what each service gives whom on which listener. Everything that
// is not here must be absent, or refused in the handshake.
var allowed = map[string]map[string]map[string]string{
	"cluster": {
		"ironring.v1.Cluster":   {"peer": reached},
		"ironring.v1.Conductor": {"peer": reached},
		"ironring.v1.Artifacts": {"peer": reached},
	},
	"api": {
		"ironring.v1.Ironring": {"none": denied, "agent": denied, "client": reached, "peer": reached},
		"ironring.v1.Join":     {"none": reached, "agent": reached, "client": reached, "peer": reached},
	},
	"agent": {
		"ironring.v1.Agent/Enrol":    {"none": reached, "agent": reached, "client": reached, "peer": reached},
		"ironring.v1.Agent/Converse": {"none": denied, "agent": reached, "client": denied, "peer": denied},
	},
}

// admits says who gets through the handshake of a listener at all.
var admits = map[string][]string{
	"cluster": {"peer"},
	"api":     {"none", "agent", "client", "peer"},
	"agent":   {"none", "agent", "client", "peer"},
}

// methods are all methods of all our services, as they were compiled in: one
// that is added later is in the matrix at once.
func methods() (out []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFilesByPackage("ironring.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				out = append(out, s.Methods().Get(j))
			}
		}
		return true
	})
	return out
}

// call makes one call with an empty request, without our client's mapping of
// errors.
func call(ctx context.Context, cc *grpc.ClientConn, m protoreflect.MethodDescriptor) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	var err error
	if m.IsStreamingClient() || m.IsStreamingServer() {
		var s grpc.ClientStream
		s, err = cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, name)
		if err == nil {
			if err = s.SendMsg(in); err == nil || errors.Is(err, io.EOF) {
				_ = s.CloseSend()
				err = s.RecvMsg(out)
			}
		}
	} else {
		err = cc.Invoke(ctx, name, in, out)
	}
	st, _ := status.FromError(err)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return reached
	case st.Code() == codes.Unavailable && len(st.Details()) == 0:
		return refused
	case st.Code() == codes.Unimplemented && strings.Contains(st.Message(), "unknown service"):
		return absent
	case st.Code() == codes.PermissionDenied && deniedToCaller(st):
		return denied
	}
	return reached
}

// deniedToCaller tells a refusal of the caller from one of what he asks for: a
// token, a boot.
func deniedToCaller(st *status.Status) bool {
	for _, text := range []string{"certificate", "role", "peers"} {
		if strings.Contains(st.Message(), text) {
			return true
		}
	}
	return false
}

// Every method of every service, on each listener, with each kind of
// credential.
func TestWhoMayCallWhat(t *testing.T) {
	p, c, _ := launch(t, Options{Config: testConfig(t, 1), Init: true})
	eventually(t, "first peer", members(c, 1))
	ca := p.cluster.CA()
	credentialsOf := map[string]*pki.Holder{"peer": p.cluster.TLS()}
	for kind, id := range map[string]pki.Identity{
		"none":     {},
		"agent":    {Role: pki.RoleAgent, Name: "n1", Nonce: "boot"},
		"client":   {Role: pki.RoleClient, Name: "alice"},
		"stranger": {Role: pki.RolePeer, Name: "p9"}, // a peer that is no member
		"forged":   {Role: pki.RolePeer, Name: "p1"}, // a member's name, another key
	} {
		credentialsOf[kind] = holder(t, ca, id)
	}
	other, err := pki.Create("elsewhere", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign := holder(t, other, pki.Identity{Role: pki.RolePeer, Name: "p1"})
	listeners := map[string]string{"cluster": p.cfg.Advertise.Cluster, "api": p.cfg.Advertise.API, "agent": p.cfg.Advertise.Agent}
	tried := 0
	for listener, address := range listeners {
		for kind, h := range credentialsOf {
			cc := dialAs(t, address, h.ClientTLS())
			for _, m := range methods() {
				service := string(m.Parent().FullName())
				want := absent
				for _, key := range []string{service, service + "/" + string(m.Name())} {
					if by, ok := allowed[listener][key]; ok {
						want = by[kind]
					}
				}
				if !contains(admits[listener], kind) {
					want = refused
				}
				if got := call(t.Context(), cc, m); got != want {
					t.Errorf("%s listener, credential %s, %s: %s, must be %s", listener, kind, m.FullName(), got, want)
				}
				tried++
			}
		}
		// A certificate of another cluster gets nowhere, with our CA to verify
		// the server.
		conf := credentialsOf["none"].ClientTLS()
		conf.GetClientCertificate = foreign.ClientTLS().GetClientCertificate
		if got := call(t.Context(), dialAs(t, address, conf), methods()[0]); got != refused {
			t.Errorf("%s listener, certificate of another cluster: %s", listener, got)
		}
	}
	if len(methods()) < 40 || tried < 18*40 {
		t.Errorf("only %d methods were found", len(methods()))
	}
	bootGivesFilesOnly(t, p)
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func holder(t *testing.T, ca *pki.CA, id pki.Identity) *pki.Holder {
	t.Helper()
	if id.Role == "" {
		h, err := pki.NewHolder(ca.CertDER(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	csr, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, id, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h, err := pki.NewHolder(ca.CertDER(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func dialAs(t *testing.T, address string, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// bootGivesFilesOnly: the boot listener knows no route but its scripts, files
// and the phone-home, no method but GET and HEAD elsewhere, and speaks no gRPC.
// The phone-home is its one write: it needs a token that is waited for, and is
// bounded for whoever has none.
func bootGivesFilesOnly(t *testing.T, p *Peer) {
	base := "http://" + p.cfg.Advertise.Boot
	do := func(method, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return http.StatusTooManyRequests
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return http.StatusTooManyRequests // enough for whoever counts
		}
		res.Body.Close()
		return res.StatusCode
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	paths := []string{"/", "/metrics", "/debug/pprof/", "/debug/vars", "/v1/nodes", "/healthz", "/../etc/passwd", "/ca.key", "/ironring.sock", "/raft/raft.db", "/keyring"}
	for _, m := range methods() {
		paths = append(paths, fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()))
	}
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			if got := do(method, path); got < 400 || got >= 500 {
				t.Errorf("boot listener: %s %s gives %d", method, path, got)
			}
		}
	}
	phoneHomeIsBounded(t, do)
}

// phoneHomeIsBounded: POST /phone-home/TOKEN is the only write on a listener
// without credentials.
func phoneHomeIsBounded(t *testing.T, do func(method, path string) int) {
	const unknown = "/phone-home/0123456789abcdef"
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if got := do(method, unknown); got != http.StatusMethodNotAllowed {
			t.Errorf("boot listener: %s %s gives %d", method, unknown, got)
		}
	}
	for _, path := range []string{"/phone-home", "/phone-home/", "/phone-home/short", unknown + "/x", unknown + "%2f"} {
		if got := do(http.MethodPost, path); got < 400 || got >= 500 {
			t.Errorf("boot listener: POST %s gives %d", path, got)
		}
	}
	var mu sync.Mutex
	seen := map[int]int{}
	var callers sync.WaitGroup
	for range 16 { // many at once: a slow machine must not make the calls rare
		callers.Go(func() {
			for enough := false; !enough; {
				got := do(http.MethodPost, unknown)
				mu.Lock()
				seen[got]++
				enough = seen[http.StatusTooManyRequests] > 0 || seen[http.StatusNotFound] > 2000
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if seen[http.StatusNotFound] == 0 || seen[http.StatusTooManyRequests] == 0 || len(seen) != 2 {
		t.Errorf("boot listener: POST %s gives %v", unknown, seen)
	}
}

// A peer serves metrics where it is asked to, and nothing beside them.
func TestMetricsListener(t *testing.T) {
	cfg := testConfig(t, 1)
	cfg.Listen.Metrics = testAddress(1) + ":7485"
	_, c, _ := launch(t, Options{Config: cfg, Init: true})
	eventually(t, "first peer", members(c, 1))
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+cfg.Listen.Metrics+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	code, body := get("/metrics")
	for _, want := range []string{"ironring_cluster_leader 1", "ironring_cluster_commands_applied_total", "go_goroutines"} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/metrics gives %d, without %s", code, want)
		}
	}
	if code, _ := get("/"); code != http.StatusNotFound {
		t.Errorf("/ gives %d", code)
	}
}

// What hinders a start is said before the token is spent.
func TestJoinLooksAtTheListenersFirst(t *testing.T) {
	_, c, _ := launch(t, Options{Config: testConfig(t, 1), Init: true})
	// At once: a token is made as soon as the new cluster can.
	token, err := c.CreateJoinToken(t.Context(), &api.CreateJoinTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	second := testConfig(t, 2)
	taken, err := listenTCP("listen.api", second.Listen.API)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Join(t.Context(), Options{Config: second, JoinToken: token.GetToken(), Logger: quiet})
	if !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "listen.api") {
		t.Errorf("join with a port in use: %v", err)
	}
	taken.Close()
	if _, err := Join(t.Context(), Options{Config: second, JoinToken: token.GetToken(), Logger: quiet}); err != nil {
		t.Errorf("the token was spent: %v", err)
	}
}
