package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/configdrive"
)

// What the flags give is what is on the drive.
func TestDriveFlags(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	user, meta := put("user.yaml", "#cloud-config\n"), put("meta.json", `{"hostname":"h1"}`)
	object := put("drive.json", `{"network_data":{"links":[]}}`+"\n")
	put("flat/user_data", "flat")
	put("tree/openstack/latest/meta_data.json", `{"a":1}`)
	put("empty/readme", "x")
	iso := make([]byte, 40<<10)
	copy(iso[16*2048:], "\x01CD001")
	image := put("drive.iso", string(iso))
	large := put("large", strings.Repeat("x", configdrive.MaxText+1))
	for name, c := range map[string]struct {
		d     driveFlags
		files string // of the drive, or how the error begins
		fails bool
	}{
		"user data":          {driveFlags{userData: user}, "openstack/latest/meta_data.json={};openstack/latest/user_data=#cloud-config\n", false},
		"standard input":     {driveFlags{userData: "-", metaData: meta}, `openstack/latest/meta_data.json={"hostname":"h1"};openstack/latest/user_data=from stdin`, false},
		"object":             {driveFlags{drive: object, metaData: meta}, `openstack/latest/meta_data.json={"hostname":"h1"};openstack/latest/network_data.json={"links":[]}`, false},
		"directory":          {driveFlags{drive: filepath.Join(dir, "flat")}, "openstack/latest/meta_data.json={};openstack/latest/user_data=flat", false},
		"tree":               {driveFlags{drive: filepath.Join(dir, "tree"), userData: user}, `openstack/latest/meta_data.json={"a":1};openstack/latest/user_data=#cloud-config` + "\n", false},
		"image":              {driveFlags{drive: image}, "image", false},
		"URL":                {driveFlags{drive: "https://h/d"}, "https://h/d", false},
		"nothing there":      {driveFlags{drive: filepath.Join(dir, "none")}, "--config-drive", true},
		"empty directory":    {driveFlags{drive: filepath.Join(dir, "empty")}, "has none of", true},
		"image and data":     {driveFlags{drive: image, userData: user}, "cannot be added", true},
		"URL and data":       {driveFlags{drive: "https://h/d", userData: user}, "cannot be added", true},
		"too large":          {driveFlags{userData: large}, "more than", true},
		"meta data, no JSON": {driveFlags{metaData: user}, "meta_data is not an object", true},
	} {
		t.Run(name, func(t *testing.T) {
			doc := map[string]any{}
			err := c.d.into(doc, &values{f: &Factory{In: strings.NewReader("from stdin")}})
			if c.fails {
				if err == nil || !strings.Contains(err.Error(), c.files) {
					t.Errorf("%v, want %q", err, c.files)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := configdrive.Parse(doc["config_drive"].(json.RawMessage))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range []string{"meta_data.json", "network_data.json", "user_data", "vendor_data.json"} {
				if b, ok := d.Files["openstack/latest/"+p]; ok {
					got = append(got, "openstack/latest/"+p+"="+string(b))
				}
			}
			if d.Image != nil {
				got = []string{"image"}
			}
			if d.URL != "" {
				got = []string{d.URL}
			}
			if s := strings.Join(got, ";"); s != c.files {
				t.Errorf("%q, want %q", s, c.files)
			}
		})
	}
	doc := map[string]any{}
	if err := (&driveFlags{}).into(doc, &values{}); err != nil || len(doc) != 0 {
		t.Errorf("%v %v", doc, err)
	}
}
