package configdrive

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

// iso is the least that counts as an image.
func iso(size int) []byte {
	b := make([]byte, size)
	copy(b[16*2048:], "\x01CD001\x01")
	copy(b[16*2048+40:], "config-2                        ")
	return b
}

func pack(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes())
}

// bomb is little that unpacks to more than is allowed.
func bomb(t *testing.T) string {
	t.Helper()
	member, err := base64.StdEncoding.DecodeString(pack(t, make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(bytes.Repeat(member, MaxImage>>20+1))
}

func text(t *testing.T, s string) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	for _, none := range []string{"", "null", `""`, "  "} {
		if d, err := Parse(json.RawMessage(none)); d != nil || err != nil {
			t.Errorf("%q: %v %v", none, d, err)
		}
	}
	small := iso(64 << 10)
	for name, in := range map[string]json.RawMessage{
		"gzip in base64":             text(t, pack(t, small)),
		"base64 with line ends":      text(t, pack(t, small)[:40]+"\n"+pack(t, small)[40:]+"\n"),
		"gzip in base64, larger one": text(t, pack(t, iso(2<<20))),
	} {
		d, err := Parse(in)
		if err != nil || VolumeLabel(d.Image) != Label || d.URL != "" || d.Files != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := Parse(text(t, "https://user:pw@images/drive.gz?token=x"))
	if err != nil || d.URL != "https://user:pw@images/drive.gz?token=x" {
		t.Errorf("%+v %v", d, err)
	}
	object := `{"user_data":"#cloud-config\npassword: x\n","meta_data":{"hostname":"h1"},"network_data":"{\"links\":[]}","vendor_data":null}`
	for _, in := range []json.RawMessage{json.RawMessage(object), text(t, object)} {
		d, err := Parse(in)
		if err != nil || len(d.Files) != 3 || string(d.Files["openstack/latest/user_data"]) != "#cloud-config\npassword: x\n" ||
			string(d.Files[MetaData]) != `{"hostname":"h1"}` || string(d.Files["openstack/latest/network_data.json"]) != `{"links":[]}` {
			t.Fatalf("%+v %v", d, err)
		}
		again, err := Parse(text(t, d.Text()))
		if err != nil || again.Text() != d.Text() {
			t.Errorf("the text is not read as it was: %v", err)
		}
		files, err := d.WithDefaults(map[string]string{"uuid": "u1", "hostname": "other", "name": ""})
		if err != nil || string(files[MetaData]) != `{"hostname":"h1","uuid":"u1"}` || string(d.Files[MetaData]) != `{"hostname":"h1"}` {
			t.Errorf("%s %v", files[MetaData], err)
		}
	}
}

// What cannot be a drive is refused, and no error shows what it holds.
func TestParseRefuses(t *testing.T) {
	const secret = "hunter2"
	for name, c := range map[string]struct{ in, want string }{
		"number":           {`42`, "neither"},
		"list":             {`["` + secret + `"]`, "neither"},
		"no base64":        {`"` + secret + `!"`, "neither a URL"},
		"base64 of no ISO": {`"` + base64.StdEncoding.EncodeToString([]byte(secret)) + `"`, "neither an ISO"},
		"damaged gzip":     {`"` + base64.StdEncoding.EncodeToString([]byte("\x1f\x8b"+secret)) + `"`, "damaged"},
		"unknown key":      {`{"userdata":"` + secret + `"}`, `"userdata"`},
		"meta data list":   {`{"meta_data":["` + secret + `"]}`, "meta_data is not an object"},
		"broken text":      {`{"network_data":"{` + secret + `"}`, "network_data is not an object"},
		"broken object":    {`"{` + secret + `"`, "not an object"},
		"URL without host": {`"http:///x?k=` + secret + `"`, "cannot be read"},
		"too long":         {`{"user_data":"` + secret + strings.Repeat("x", MaxText) + `"}`, "serve it over http"},
		"bomb":             {string(text(t, bomb(t))), "larger than 64 MiB"},
	} {
		_, err := Parse(json.RawMessage(c.in))
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is given is refused as invalid or read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`""`, `"http://x/y"`, `{"user_data":"x"}`, `{"meta_data":{"a":1},"vendor_data":"{}"}`, `"eyJ9"`, `"H4sI"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if d == nil {
			return
		}
		doc, err := json.Marshal(d.Text())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(doc)
		if err != nil || again == nil || again.Text() != d.Text() {
			t.Fatalf("%q: %v", d.Text(), err)
		}
	})
}
