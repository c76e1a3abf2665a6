package cli

import (
	"context"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/pki"
)

// commandOf is, for each method of the API, a command that calls it. With args
// the command can be run against a cluster in memory.
var commandOf = map[string]struct {
	path string
	args []string
}{
	"CreateNode":           {"node create", []string{"--name", "n2", "--driver", "fake"}},
	"CreateNodes":          {"node apply", []string{"--yes", "-f", "FLEET"}},
	"GetNode":              {"node show", []string{"n1"}},
	"ListNodes":            {"node list", []string{}},
	"UpdateNode":           {"node set", []string{"n1", "--description", "x"}},
	"DeleteNode":           {"node delete", []string{"n1", "--yes"}},
	"Provision":            {"node manage", []string{"n1"}},
	"Power":                {"node power", []string{"n1", "on"}},
	"GetFlow":              {"node flow", []string{"n1"}},
	"Explain":              {"node explain", []string{"n1"}},
	"GetInventory":         {"node inventory", []string{"n1"}},
	"History":              {"node history", []string{"n1"}},
	"WatchNode":            {"node manage", nil}, // --wait
	"Journal":              {"node logs", []string{"n1"}},
	"GetHardware":          {"node bmc sensors", nil},
	"ChangeHardware":       {"node bmc nmi", nil},
	"AcceptBmcCertificate": {"node bmc accept-certificate", nil},
	"CreatePort":           {"port create", []string{"n1", "52:54:00:00:00:09"}},
	"ListPorts":            {"port list", []string{}},
	"DeletePort":           {"port delete", []string{"52:54:00:00:00:01"}},
	"SetNetwork":           {"network set", []string{"prov", "--cidr", "10.0.0.0/24", "--range", "10.0.0.2-10.0.0.9"}},
	"ListNetworks":         {"network list", []string{}},
	"DeleteNetwork":        {"network delete", []string{"none"}},
	"BootRecord":           {"node boot show", nil},
	"ClusterStatus":        {"cluster status", []string{}},
	"CreateJoinToken":      {"cluster token", []string{}},
	"Leave":                {"cluster leave", []string{"p3", "--yes"}},
	"CreateClientCert":     {"client-cert create", []string{"bob", "--dir", "DIR"}},
	"Version":              {"version", []string{"--peer"}},
	"PutArtifact":          {"artifact put", nil},
	"GetArtifact":          {"artifact show", nil},
	"ListArtifacts":        {"artifact list", nil},
	"DeleteArtifact":       {"artifact rm", nil},
	"SetRamdisk":           {"ramdisk publish", nil},
	"ListRamdisks":         {"ramdisk list", nil},
	"DeleteRamdisk":        {"ramdisk rm", nil},
	"GetSettings":          {"cluster settings show", nil},
	"SetSettings":          {"cluster settings set", nil},
	"RotateKeys":           {"cluster rotate-keys", nil},
}

// Every method of the API has a command.
func TestEveryMethodHasACommand(t *testing.T) {
	methods := map[string]bool{}
	for _, m := range api.Ironring_ServiceDesc.Methods {
		methods[m.MethodName] = true
	}
	for _, s := range api.Ironring_ServiceDesc.Streams {
		methods[s.StreamName] = true
	}
	f, _, _ := testFactory("", nil)
	root := NewRoot(f)
	for m := range methods {
		c, ok := commandOf[m]
		if !ok {
			t.Errorf("no command calls %s: name one in commandOf", m)
			continue
		}
		cmd, left, err := root.Find(strings.Fields(c.path))
		if err != nil || len(left) > 0 || cmd.RunE == nil {
			t.Errorf("%s: there is no command %q", m, c.path)
		}
	}
	for m := range commandOf {
		if !methods[m] {
			t.Errorf("commandOf names %s, which is no method", m)
		}
	}
}

// From a host that has nothing but addresses, the CA and a client certificate
// every command works, and reaches the method that it is listed for.
func TestFromAnotherHost(t *testing.T) {
	now := time.Now()
	ca, err := pki.Create("c1", now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issue := func(role pki.Role, name string) (cert, key []byte) {
		csr, key, err := pki.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		if cert, err = ca.Issue(csr, pki.Identity{Cluster: ca.Cluster(), Role: role, Name: name}, time.Hour, now); err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := issue(pki.RolePeer, "p1")
	holder, err := pki.NewHolder(ca.CertDER(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clientCert, clientKey := issue(pki.RoleClient, "alice")
	fleet := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(fleet, []byte("- {name: n3, driver: fake}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := []string{"--ca", write("ca.crt", "CERTIFICATE", ca.CertDER()), "--cert", write("a.crt", "CERTIFICATE", clientCert), "--key", write("a.key", "PRIVATE KEY", clientKey)}
	for method, c := range commandOf {
		if c.args == nil {
			continue
		}
		t.Run(method, func(t *testing.T) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			peer := clienttest.New().Peer("p1")
			defer peer.Serve(lis, grpc.Creds(credentials.NewTLS(holder.ServerTLS(true))))()
			if _, err := peer.CreateNode(context.Background(), &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}, Ports: []*api.Port{{Address: "52:54:00:00:00:01"}}}); err != nil {
				t.Fatal(err)
			}
			f, out, stderr := testFactory("", nil)
			args := strings.Fields(c.path)
			for _, a := range c.args {
				args = append(args, strings.NewReplacer("FLEET", fleet, "DIR", t.TempDir()).Replace(a))
			}
			code := Main(context.Background(), f, append(append(args, "--server", lis.Addr().String()), with...))
			if want := map[bool]int{true: 4}[method == "DeleteNetwork" || method == "GetFlow" && code == 4]; code != want {
				t.Errorf("%s: exit code %d\n%s%s", c.path, code, out, stderr)
			}
			if !slices.Contains(peer.Calls(), method) {
				t.Errorf("%s called %q, not %s", c.path, peer.Calls(), method)
			}
		})
	}
}
