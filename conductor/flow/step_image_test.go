package flow

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// slowImages are peers that need long for the second copy of an image.
type slowImages struct {
	moves int   // how often it grows, each 9 minutes
	err   error // what it ends with when it hangs after that; nil: it does not hang
}

func (s *slowImages) Image(ctx context.Context, _ []string, _, _ string, progress func(done, total uint64, what string)) (*api.Artifact, error) {
	progress(100, 100, "peer p2 downloads the image")
	for i := range s.moves {
		if err := clock.Pause(ctx, 9*time.Minute); err != nil {
			return nil, err
		}
		progress(uint64(i+1), 100, "peer p3 takes the second copy of the image") //nolint:gosec // small
	}
	if s.err != nil {
		<-ctx.Done()
		return nil, s.err
	}
	return &api.Artifact{Digest: strings.TrimPrefix(checksum, "sha256:")}, nil
}

func (s *slowImages) URLs(string, string) []string { return []string{"http://p1/image"} }

// A second copy that takes more than an hour fails no deploy while it grows;
// one that stops does, once, in words about the peers.
func TestSlowSecondCopy(t *testing.T) {
	for name, c := range map[string]struct {
		images slowImages
		says   []string // nil: the deploy is done
	}{
		"it grows": {slowImages{moves: 9}, nil},
		"it hangs": {slowImages{2, errs.New(errs.Timeout, "the image did not come")}, []string{"the peers came no further", "peer p3 takes the second copy of the image, 2 bytes"}},
		"no origin": {slowImages{0, errs.New(errs.Unreachable, "peer p2: http://images/a.raw: connection refused")},
			[]string{"the peers came no further", "connection refused", "does a peer reach its server"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.images = &c.images
				r.start("p1")
				r.ready("p1")
				begin := time.Now()
				r.deployWith(DeployArgs{Source: SourceLocal})
				r.idle(2 * time.Hour)
				if c.says == nil {
					r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
					return
				}
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				for _, text := range c.says {
					if got := r.node().GetLastError(); !strings.Contains(got, text) || strings.Contains(got, "the agent") {
						r.Errorf("the error is %q, want %q", got, text)
					}
				}
				if took := time.Since(begin) - time.Duration(c.images.moves)*9*time.Minute; took > 15*time.Minute {
					r.Errorf("it took %v to fail", took)
				}
			})
		})
	}
}

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
