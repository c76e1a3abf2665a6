package conductor_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// standIns are functions that hide curl and sleep from a script: each call is
// noted, and gets the next of the answers, the last one again and again.
const standIns = `sleep() { :; }
curl() {
	for url; do :; done
	n=0
	[ -f "$DIR/count" ] && read n < "$DIR/count"
	echo $((n + 1)) > "$DIR/count"
	echo "$url" >> "$DIR/calls"
	set -- $ANSWERS
	[ $n -ge $# ] && n=$(($# - 1))
	shift $n
	printf %s "$1"
	[ "$1" != 000 ]
}
`

// The user data that the documentation gives to operators ends: with the first
// 200 or 404 of any peer, and after a bounded number of tries.
func TestUserDataOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "## template: jinja\n")
	data, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("docs/images.md has no user data")
	}
	const urls = "http://p1/phone-home/TOKEN http://p2/phone-home/TOKEN"
	var doc struct {
		Runcmd []string `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(data, "{{ ds.meta_data.phone_home_urls }}", urls)), &doc); err != nil || len(doc.Runcmd) != 1 {
		t.Fatal(err, doc)
	}
	if strings.Contains(doc.Runcmd[0], "{{") || strings.Contains(doc.Runcmd[0], "{%") || strings.Contains(doc.Runcmd[0], "{#") {
		t.Errorf("more of jinja than this test renders: %s", doc.Runcmd[0])
	}
	for name, test := range map[string]struct {
		answers string // one for each call
		calls   int
		last    string
	}{
		"at once":                  {"200", 1, "p1"},
		"the first one is down":    {"000 200", 2, "p2"},
		"too early, then in time":  {"503 503 429 200", 4, "p2"},
		"the deploy has ended":     {"503 000 404", 3, "p1"},
		"nobody ever":              {"000", 480, "p2"},
		"no majority all the time": {"503", 480, "p2"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// cloud-init puts all commands into one script: what follows must run.
			cmd := exec.CommandContext(t.Context(), "sh", "-c", standIns+doc.Runcmd[0]+"\necho the next command")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DIR=" + dir, "ANSWERS=" + test.answers}
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "the next command\n" {
				t.Fatalf("%v: %s", err, out)
			}
			raw, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			calls := strings.Fields(string(raw))
			if len(calls) != test.calls || calls[len(calls)-1] != "http://"+test.last+"/phone-home/TOKEN" {
				t.Errorf("%d calls, the last one to %s", len(calls), calls[len(calls)-1])
			}
		})
	}
}
