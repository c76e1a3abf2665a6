package flow

import (
	"testing"

	"github.com/ironring/ironring/api"
)

func TestImageSource(t *testing.T) {
	const local, http = `{"image_download_source":"local"}`, `{"image_download_source":"http"}`
	for name, c := range map[string]struct {
		args                     string
		instance, driver, global string
		want                     string
	}{
		"nothing said":                   {"", "", "", "", "http"},
		"settings":                       {"", "{}", "{}", "local", "local"},
		"driver_info before settings":    {"", "{}", http, "local", "http"},
		"instance_info before driver":    {"", local, http, "http", "local"},
		"the deploy before all":          {"http", local, local, "local", "http"},
		"a word that means nothing":      {"swift", "", "", "", ""},
		"a word of the node, no meaning": {"", `{"image_download_source":"cinder"}`, "", "", ""},
		"no text":                        {"", `{"image_download_source":7}`, "", "local", ""},
	} {
		got, err := imageSource(DeployArgs{Source: c.args}, &api.Node{InstanceInfo: []byte(c.instance), DriverInfo: []byte(c.driver)}, &api.Settings{ImageDownloadSource: c.global})
		if (err != nil) != (c.want == "") || err == nil && got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestImageName(t *testing.T) {
	for url, want := range map[string]string{
		"http://h/images/debian-13.raw.zst?token=secret": "debian-13.raw.zst", "http://h/": "h", "http://h/a b\x01": "a-b-",
	} {
		if got := imageName(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}
