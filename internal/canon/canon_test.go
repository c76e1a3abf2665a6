package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

func TestNormalize(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{` { "b" : 1.0 , "a" : [ 1 , 2e3 , -0 ] } `, `{"a":[1,2e3,-0],"b":1.0}`},
		{`"\u0041\/\u00e9\u2028"`, "\"A/é\u2028\""},
		{`"<&>\u0001\n\u0008"`, `"<&>\u0001\n\b"`},
		{`"\ud83d\ude00"`, `"😀"`},
		{`"\\ud800"`, `"\\ud800"`},
		{`null`, `null`},
		{`[]`, `[]`},
		{`{}`, `{}`},
		{`[[],{},""]`, `[[],{},""]`},
		{`{"a":{"z":null,"y":true},"":false}`, `{"":false,"a":{"y":true,"z":null}}`},
		{`123456789012345678901234567890.10`, `123456789012345678901234567890.10`},
	} {
		got, err := Normalize([]byte(c.in), 0)
		if err != nil || string(got) != c.want {
			t.Errorf("Normalize(%s) = %s, %v; want %s", c.in, got, err, c.want)
		}
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{``, "malformed"},
		{`{`, "malformed"},
		{`{"a":1}x`, "malformed at byte 8"},
		{`{"a":1,"a":2}`, `key "a" twice`},
		{`{"a":1,"\u0061":2}`, `key "a" twice`},
		{"\"\xff\"", "UTF-8"},
		{`"\ud800"`, "surrogate"},
		{`"\udc00\ud800"`, "surrogate"},
		{`"\ud800\u0041"`, "surrogate"},
		{strings.Repeat("[", 26) + strings.Repeat("]", 26), "nested deeper"},
		{strings.Repeat("[", 1_000_000), "nested deeper"},
	} {
		_, err := Normalize([]byte(c.in), 0)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Normalize(%.40s): %v; want %q", c.in, err, c.want)
		}
	}
	if _, err := Normalize([]byte(strings.Repeat("[", 25)+strings.Repeat("]", 25)), 0); err != nil {
		t.Errorf("depth 25: %v", err)
	}
	if _, err := Normalize([]byte(`"abc"`), 4); !errors.Is(err, errs.Invalid) {
		t.Errorf("limit: %v", err)
	}
}

func TestObject(t *testing.T) {
	if got, err := Object(nil, 10); err != nil || string(got) != "{}" {
		t.Errorf("empty: %s, %v", got, err)
	}
	if _, err := Object([]byte(`[1]`), 0); err == nil || !strings.Contains(err.Error(), "not an array") {
		t.Errorf("array: %v", err)
	}
}

func TestJSON(t *testing.T) {
	got, err := JSON(struct {
		Z string
		A map[string]any
	}{"<b>", map[string]any{"y": 1, "x": nil}})
	if err != nil || string(got) != `{"A":{"x":null,"y":1},"Z":"<b>"}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := JSON(make(chan int)); !errors.Is(err, errs.Invalid) {
		t.Errorf("chan: %v", err)
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\u0041",{"b":null}]}`, `"\ud83d\ude00"`, `[`, `{"a":1,"a":1}`, "\"\\u00\"", `"\`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		out, err := Normalize(doc, 0)
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		again, err := Normalize(out, 0)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("not idempotent: %q then %q, %v", out, again, err)
		}
		if !reflect.DeepEqual(decode(t, doc), decode(t, out)) {
			t.Fatalf("%q changed its value: %q", doc, out)
		}
	})
}

func decode(t *testing.T, doc []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
