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

	"github.com/ironring/ironring/agent/ramdisk"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/pki"
)

// calling is a command line that calls a method.
type calling struct {
	path  string
	args  []string
	want  string   // what it says
	code  int      // how it ends
	first []string // a command before it
}

// commandOf is, for each method of the API, a command that calls it. FLEET, FILE
// and RAMDISK are files, DIR is an empty directory.
var commandOf = map[string]calling{
	"CreateNode":           {path: "node create", args: []string{"--name", "n2", "--driver", "fake"}, want: "node n2 enrolled"},
	"CreateNodes":          {path: "node apply", args: []string{"--yes", "-f", "FLEET"}, want: "1 done"},
	"GetNode":              {path: "node show", args: []string{"n1"}, want: "52:54:00:00:00:01"},
	"ListNodes":            {path: "node list", want: "n1"},
	"UpdateNode":           {path: "node set", args: []string{"n1", "--description", "x"}, want: "node n1 changed, revision 2"},
	"DeleteNode":           {path: "node delete", args: []string{"n1", "--yes"}, want: "node n1 deleted"},
	"Provision":            {path: "node manage", args: []string{"n1"}, want: "manage of node n1 accepted"},
	"Power":                {path: "node power", args: []string{"n1", "on"}, want: "power on of node n1 accepted"},
	"GetFlow":              {path: "node flow", args: []string{"n1"}, want: "power.power_on", first: []string{"node", "power", "n1", "on"}},
	"Explain":              {path: "node explain", args: []string{"n1"}, want: "n1"},
	"GetInventory":         {path: "node inventory", args: []string{"n1"}, want: "/dev/vda"},
	"History":              {path: "node history", args: []string{"n1"}, want: "create node"},
	"WatchNode":            {path: "node manage", args: []string{"n1", "--wait"}, want: "manage done, state manageable"},
	"Journal":              {path: "node logs", args: []string{"n1"}, want: "an agent has come"},
	"GetHardware":          {path: "node bmc sensors", args: []string{"n1"}, want: "Inlet Temp"},
	"ChangeHardware":       {path: "node bmc nmi", args: []string{"n1", "--yes"}, want: "nmi of node n1 accepted"},
	"AcceptBmcCertificate": {path: "node bmc accept-certificate", args: []string{"n1", "--fingerprint", "sha256:" + strings.Repeat("ab", 32)}, want: "n1"},
	"CreatePort":           {path: "port create", args: []string{"n1", "52:54:00:00:00:09"}, want: "created"},
	"ListPorts":            {path: "port list", want: "52:54:00:00:00:01"},
	"DeletePort":           {path: "port delete", args: []string{"52:54:00:00:00:01"}, want: "deleted"},
	"SetNetwork":           {path: "network set", args: []string{"prov", "--cidr", "10.0.0.0/24", "--range", "10.0.0.2-10.0.0.9"}, want: "prov"},
	"ListNetworks":         {path: "network list", want: "prov", first: []string{"network", "set", "prov", "--cidr", "10.0.0.0/24", "--range", "10.0.0.2-10.0.0.9"}},
	"DeleteNetwork":        {path: "network delete", args: []string{"none"}, want: "none", code: 4},
	"BootRecord":           {path: "node boot show", args: []string{"n1"}, want: "/ipxe/snponly.efi"},
	"ClusterStatus":        {path: "cluster status", want: "p1"},
	"CreateJoinToken":      {path: "cluster token", want: "for one peer"},
	"Leave":                {path: "cluster leave", args: []string{"p3", "--yes"}, want: "p3"},
	"CreateClientCert":     {path: "client-cert create", args: []string{"bob", "--dir", "DIR"}, want: "bob"},
	"Version":              {path: "version", args: []string{"--peer"}, want: "p1"},
	"PutArtifact":          {path: "artifact put", args: []string{"FILE", "--name", "debian"}, want: "stored on p1, p2"},
	"GetArtifact":          {path: "artifact show", args: []string{"debian"}, want: "deleted 24 hours after its last use", first: []string{"artifact", "put", "FILE", "--name", "debian"}},
	"ListArtifacts":        {path: "artifact list", want: "debian", first: []string{"artifact", "put", "FILE", "--name", "debian"}},
	"DeleteArtifact":       {path: "artifact rm", args: []string{"debian"}, want: "artifact debian deleted", first: []string{"artifact", "put", "FILE", "--name", "debian"}},
	"SetRamdisk":           {path: "ramdisk publish", args: []string{"RAMDISK", "--arch", "x86_64"}, want: "machines of x86_64 boot kernel"},
	"ListRamdisks":         {path: "ramdisk list", want: "x86_64", first: []string{"ramdisk", "publish", "RAMDISK", "--arch", "x86_64"}},
	"DeleteRamdisk":        {path: "ramdisk rm", args: []string{"x86_64"}, want: "no longer published", first: []string{"ramdisk", "publish", "RAMDISK", "--arch", "x86_64"}},
	"GetSettings":          {path: "cluster settings show", want: "max_voters"},
	"SetSettings":          {path: "cluster settings set", args: []string{"max_voters=5"}, want: "max_voters"},
	"RotateKeys":           {path: "cluster rotate-keys", want: "new keys are being made"},
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
	file, ramdiskDir := filepath.Join(dir, "image"), filepath.Join(dir, "ramdisk")
	for _, path := range []string{file, filepath.Join(ramdiskDir, ramdisk.KernelFile), filepath.Join(ramdiskDir, ramdisk.InitramfsFile)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for method, c := range commandOf {
		t.Run(method, func(t *testing.T) {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			cluster := clienttest.New()
			peer := cluster.Peer("p1")
			defer peer.Serve(lis, grpc.Creds(credentials.NewTLS(holder.ServerTLS(true))))()
			if _, err := peer.CreateNode(context.Background(), &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}, Ports: []*api.Port{{Address: "52:54:00:00:00:01"}}}); err != nil {
				t.Fatal(err)
			}
			cluster.Log(&api.JournalEvent{Peer: "p1", Seq: 1, AtMs: testNow.UnixMilli(), Kind: "log", Text: "an agent has come"})
			if method == "WatchNode" {
				cluster.Script("n1", func(n *api.Node, f *api.Flow) *api.Progress {
					n.State, f.Status = api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE
					return nil
				})
			}
			run := func(args []string) (int, string) {
				f, out, stderr := testFactory("", nil)
				var line []string
				for _, a := range args {
					line = append(line, strings.NewReplacer("FLEET", fleet, "FILE", file, "RAMDISK", ramdiskDir, "DIR", t.TempDir()).Replace(a))
				}
				code := Main(context.Background(), f, append(append(line, "--server", lis.Addr().String()), with...))
				return code, out.String() + stderr.String()
			}
			if c.first != nil {
				if code, out := run(c.first); code != 0 {
					t.Fatalf("%q: exit code %d\n%s", c.first, code, out)
				}
			}
			before := len(peer.Calls())
			code, out := run(append(strings.Fields(c.path), c.args...))
			if code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("%s: exit code %d, not %d, or no %q in\n%s", c.path, code, c.code, c.want, out)
			}
			if !slices.Contains(peer.Calls()[before:], method) {
				t.Errorf("%s called %q, not %s", c.path, peer.Calls()[before:], method)
			}
		})
	}
}
