package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
)

// Every command that takes a node completes names of nodes, and nothing is
// done or said for it.
func TestCompletionOfNodes(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ACTIVE)
	d.does(0, "enrolled", "node", "create", "--name", "web1", "--driver", "fake")
	before := len(d.fake.Done())
	complete := func(words ...string) string {
		t.Helper()
		// The word that is begun comes last, so the socket stands before it.
		f, out, stderr := testFactory("", map[string]string{"IRONRING_SOCKET": d.socket})
		if code := Main(t.Context(), f, append([]string{"__complete"}, words...)); code != 0 {
			t.Fatalf("%q: exit code %d: %s", words, code, stderr)
		}
		all := strings.Fields(strings.ReplaceAll(out.String(), "\t", "="))
		return strings.Join(all[:len(all)-1], " ") // without the directive
	}
	for _, c := range []struct{ line, want string }{
		{"node show |", "n01=active n02=active web1=enroll"},
		{"node show w|", "web1=enroll"},
		{"node show n01 |", ""},
		{"node undeploy n01 |", "n02=active web1=enroll"},
		{"node deploy n01 n|", "n02=active"},
		{"node power n|", "n01=active n02=active"},
		{"node power n01 |", "on off reboot soft-off n02=active web1=enroll"},
		{"node power n01 off |", ""},
		{"node power --where true o|", "on off"},
		{"node bmc sensors x|", ""},
		{"port create w|", "web1=enroll"},
		{"port create web1 |", ""},
	} {
		words := strings.Split(strings.TrimSuffix(c.line, "|"), " ")
		if got := complete(words...); got != c.want {
			t.Errorf("%q completes to %q, not %q", c.line, got, c.want)
		}
	}
	f, _, _ := testFactory("", nil)
	everyCommand(NewRoot(f), func(cmd *cobra.Command) {
		if strings.Contains(cmd.Use, " NODE") && !strings.Contains(" "+complete(append(strings.Fields(cmd.CommandPath())[1:], "w")...), " web1=enroll") {
			t.Errorf("%s completes no nodes", cmd.CommandPath())
		}
	})
	if done := d.fake.Done()[before:]; len(done) > 0 {
		t.Errorf("done: %q", done)
	}
}

// A shell does not hang, and shows nothing, where no peer answers.
func TestCompletionWithoutPeers(t *testing.T) {
	f, out, stderr := testFactory("", map[string]string{"IRONRING_SOCKET": t.TempDir() + "/none"})
	if code := Main(t.Context(), f, []string{"__complete", "node", "show", ""}); code != 0 || strings.Contains(stderr.String(), "none") || !strings.HasPrefix(out.String(), ":") {
		t.Errorf("exit code %d: %q %q", code, out, stderr)
	}
}
