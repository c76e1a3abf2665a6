package ports

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/ports.md")

const document = "../../docs/ports.md"

func TestDocument(t *testing.T) {
	if *update {
		if err := os.WriteFile(document, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Markdown() {
		t.Errorf("docs/ports.md is not what the table says; run: go test ./internal/ports -update")
	}
}

func TestNoTwoAlike(t *testing.T) {
	keys, numbers := map[string]bool{}, map[int]bool{}
	for _, p := range Table() {
		if keys[p.Key] || numbers[p.Number] {
			t.Errorf("%s %d is in the table twice", p.Key, p.Number)
		}
		keys[p.Key], numbers[p.Number] = true, true
	}
}
