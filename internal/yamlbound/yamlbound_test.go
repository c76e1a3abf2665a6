package yamlbound

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// soon is how long an answer may take. Within bounds each takes some hundredths
// of a second, with the race detector tenths; without them most of these inputs
// take minutes. What lies between is for busy machines.
const soon = 30 * time.Second

// TestStalls: inputs that keep the library busy for minutes, or end the process,
// are refused with a reason.
func TestStalls(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"lists in one line":      {strings.Repeat("- ", 1<<16), "nested more than 64 deep"},
		"keys in one line":       {strings.Repeat("? ", 1<<16), "nested more than 64 deep"},
		"flow lists":             {strings.Repeat("[", 65), "nested more than 64 deep"},
		"flow lists with values": {strings.Repeat("[a,", 900), "nested more than 64 deep"},
		"flow mappings":          {strings.Repeat("{a: ", 900), "nested more than 64 deep"},
		"brackets":               {strings.Repeat("[", 32<<20), "line 1: more than 1000 brackets"},
		"brackets in lines":      {strings.Repeat("{\n", 1<<16), "line 1001: more than 1000 brackets"},
		"mappings":               {indented(500, "a:"), "line 65: nested more than 64 deep"},
		"lists":                  {indented(500, "-"), "nested more than 64 deep"},
		"lists and mappings":     {indented(500, "- a:"), "nested more than 64 deep"},
		"after a block":          {"a: |\n b\n" + strings.Repeat("\n", 1<<16), "line 104: more than 100 empty lines in a row"},
		"after an empty block":   {"a: |\n" + strings.Repeat(" \n", 1<<16), "more than 100 empty lines in a row"},
		"of Windows":             {"a: |\r\n b\r\n" + strings.Repeat("\r\n", 1<<16), "line 104: more than 100 empty lines in a row"},
		"of old Macs":            {"a: |\r b\r" + strings.Repeat("\r", 1<<16), "line 104: more than 100 empty lines in a row"},
		"empty entries":          {strings.Repeat("- #a\n", 1<<16), "line 10002: more than 10000 empty entries in lists"},
		"keys":                   {numbered("k%d: v\n", 20_000), "line 4001: more than 4000 keys in one mapping"},
		"keys in a list":         {"- a\n-" + numbered(" k%d:\n    - v\n ", 10_000), "line 8002: more than 4000 keys in one mapping"},
		"keys that are lists":    {numbered("[k%d]: v\n", 10_000), "more than 4000 keys in one mapping"},
		"keys of flow mappings":  {numbered("{a: %d}: v\n", 10_000), "line 4001: more than 4000 keys in one mapping"},
		"keys with anchors":      {numbered("&a k%d: v\n", 10_000), "line 4001: more than 4000 keys in one mapping"},
		"keys in quotes":         {numbered("'k%d': v\n", 10_000), "line 4001: more than 4000 keys in one mapping"},
		"keys with marks":        {numbered("? k%d\n: v\n", 10_000), "line 8001: more than 4000 keys in one mapping"},
		"keys without values":    {numbered("? k%d\n", 20_000), "line 4001: more than 4000 keys in one mapping"},
		"documents":              {strings.Repeat("---\n", 20_000), "line 101: more than 100 lines that begin or end a document"},
		"documents with values":  {strings.Repeat("---\na: b\n", 20_000), "more than 100 lines that begin or end a document"},
		"ends of documents":      {strings.Repeat("a: b\n...\n", 20_000), "more than 100 lines that begin or end a document"},
		"directives":             {strings.Repeat("%TAG ! a\n", 20_000), "more than 100 lines that begin or end a document"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse([]byte(c.text))
			var bound *Error
			if !errors.As(err, &bound) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if took := time.Since(start); took > soon {
				t.Errorf("refused after %s", took)
			}
		})
	}
}

// numbered is one text many times, each with another number.
func numbered(text string, times int) string {
	var b strings.Builder
	for i := range times {
		fmt.Fprintf(&b, text, i)
	}
	return b.String()
}

// indented is a text whose every line stands one further to the right.
func indented(lines int, text string) string {
	var b strings.Builder
	for i := range lines {
		b.WriteString(strings.Repeat(" ", i) + text + "\n")
	}
	return b.String()
}

// TestTokens: a file may have so many words.
func TestTokens(t *testing.T) {
	l := limits{tokens: maxTokens}
	if err := l.look(&token.Token{Position: &token.Position{Line: 7}}); err == nil || err.Error() != "line 7: the file is too large" {
		t.Errorf("got %v", err)
	}
}

// TestParse: what people write is parsed as the library does it, also when it is
// large or stands just within the bounds.
func TestParse(t *testing.T) {
	var fleet strings.Builder
	fleet.WriteString("nodes:\n")
	for i := range 500 {
		fmt.Fprintf(&fleet, "- name: n%d\n  driver: redfish\n  driver_info: {redfish_address: 'https://192.0.2.1', tags: [a, b]}\n  extra:\n    -\n      a: |\n        text\n\n        more\n\n", i)
	}
	for name, text := range map[string]string{
		"nothing":      "",
		"a fleet":      fleet.String(),
		"deep":         indented(60, "a:"),
		"deep flow":    strings.Repeat("[", 60) + strings.Repeat("]", 60),
		"wide flow":    "[" + strings.Repeat("[a], {b: c},\n", 1000) + "]",
		"empty lines":  "a: b\n" + strings.Repeat("\n", 100) + "c: d\n",
		"back out":     strings.Repeat("a:\n - b:\n    - c\n - d\n", 1),
		"wide":         numbered("k%d: v\n", 4000),
		"wide often":   strings.Repeat("-\n"+numbered("  k%d:\n    a: b\n", 500), 4),
		"many small":   numbered("- name: n%d\n  driver: b\n", 4100),
		"wide in flow": "{" + numbered("k%d: v, ", 4100) + "}",
		"documents":    strings.Repeat("---\n"+numbered("k%d: v\n", 50), 90),
		"dashes":       strings.Repeat("-\n  a: b\n", 12000),
		"anchors":      "a: &x {b: c}\nd: *x\n",
		"several":      "---\na: b\n---\nc: d\n",
		"no YAML":      "a: [b\n",
		"a tab":        "a:\n\tb\n",
		"quoted lines": "a: 'b\n\n\n  c'\nd: \"e\n\n f\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(text))
			want, wantErr := parser.ParseBytes([]byte(text), 0)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || shape(got) != shape(want) {
				t.Errorf("differs from the library: %v, %v", err, wantErr)
			}
		})
	}
}

func shape(f *ast.File) string {
	if f == nil {
		return ""
	}
	return f.String()
}

// FuzzParse: whatever is accepted is what the library makes of it, and nothing
// takes long.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"nodes:\n- name: n1\n", "a: |\n b\n\n\n", "- - - a\n", "[{a: [b]}]", "? a\n: b\n", "a: &x b\nc: *x\n", "- #a\n- #b\n", "!!t a\n", "%YAML 1.2\n---\na\n...\n"} {
		f.Add([]byte(s), uint16(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, times uint16) {
		if len(data) > 64 {
			return
		}
		data = []byte(strings.Repeat(string(data), int(times))) // what repeats is what grows
		start := time.Now()
		_, err := Parse(data)
		if took := time.Since(start); took > soon {
			t.Errorf("%d bytes took %s: %v", len(data), took, err)
		}
	})
}
