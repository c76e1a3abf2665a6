package seal

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/canon"
)

// The walk over bytes does what a walk over the decoded document does: it meets
// the same leaves, and replaces the same ones.
func TestWalkDoc(t *testing.T) {
	text := rapid.StringOf(rapid.RuneFrom([]rune(`ab"\/<&{}[]:,` + "\n\x01é\u2028😀")))
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaves := []*rapid.Generator[any]{
			text.AsAny(), rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Float64().AsAny(), rapid.Int().AsAny(),
		}
		if depth == 0 {
			return rapid.OneOf(leaves...)
		}
		return rapid.OneOf(append(leaves, rapid.MapOf(text, value(depth-1)).AsAny(), rapid.SliceOf(value(depth-1)).AsAny())...)
	}
	rapid.Check(t, func(t *rapid.T) {
		doc, err := json.Marshal(value(3).Draw(t, "document"))
		if err != nil {
			t.Fatal(err)
		}
		// Every other leaf that has an "a" in its path, or is a number, is replaced.
		met := map[string]int{}
		replace := func(path []string, number bool) bool {
			met[strings.Join(path, "\x00")]++
			return number || strings.Contains(strings.Join(path, ""), "a")
		}
		got, err := walkDoc(doc, func(path []string, v leaf) ([]byte, error) {
			s, isText := v.text()
			if !replace(path, !isText && v.sealable()) {
				return v, nil
			}
			return canon.AppendString(nil, "<"+s+">"), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		fast := met
		met = map[string]int{}
		var slow func(path []string, v any) any
		slow = func(path []string, v any) any {
			switch v := v.(type) {
			case map[string]any:
				for k, child := range v {
					v[k] = slow(append(path[:len(path):len(path)], k), child)
				}
				return v
			case []any:
				for i, child := range v {
					v[i] = slow(append(path[:len(path):len(path)], strconv.Itoa(i)), child)
				}
				return v
			}
			_, number := v.(json.Number)
			if !replace(path, number) {
				return v
			}
			s, _ := v.(string)
			return "<" + s + ">"
		}
		dec := json.NewDecoder(bytes.NewReader(doc))
		dec.UseNumber()
		var decoded any
		if err := dec.Decode(&decoded); err != nil {
			t.Fatal(err)
		}
		want, err := canon.JSON(slow(nil, decoded))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s became\n%s, not\n%s", doc, got, want)
		}
		for path, n := range met {
			if fast[path] != n {
				t.Fatalf("%s: leaf %q was met %d times, not %d", doc, path, fast[path], n)
			}
		}
	})
	for _, bad := range []string{`{`, `{"a":1} x`, `{"a":1,"a":2}`, "\xff"} {
		if _, err := walkDoc([]byte(bad), func(_ []string, v leaf) ([]byte, error) { return v, nil }); err == nil {
			t.Errorf("%s was walked", bad)
		}
	}
}
