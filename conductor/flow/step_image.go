package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Where agents get images from (image_download_source).
const (
	SourceHTTP  = "http"  // the image's own URL
	SourceLocal = "local" // the peers, which download it once and verify it
)

// CheckSource refuses a value of image_download_source that means nothing.
func CheckSource(s string) error {
	switch s {
	case "", SourceHTTP, SourceLocal:
		return nil
	}
	return errs.About(errs.Invalid, "image_download_source", "image_download_source: %q is not %s or %s", s, SourceHTTP, SourceLocal)
}

// Images is what flows need of package pxe/artifact.
type Images interface {
	// Image returns when the peers have the image with a checksum. progress is
	// told, one call at a time, when that has come nearer and only then: what is
	// being done, and how many bytes of that are done, total 0: not known.
	Image(ctx context.Context, urls []string, checksum, name string, progress func(done, total uint64, what string)) (*api.Artifact, error)
	// URLs are where machines get an artifact from, in an order that depends on
	// key.
	URLs(digest, key string) []string
}

// imageURLs are where the agent gets the image of a deploy from: the same
// bytes behind each. With source local it returns only when the peers have the
// image; that is what step and lock see as progress meanwhile.
func (r *runner) imageURLs(ctx context.Context, p position, args DeployArgs) ([]string, error) {
	v := r.cfg.Store.View()
	source, err := imageSource(args, v.Node(r.node), v.Settings())
	if err != nil || source == SourceHTTP {
		return []string{args.Image}, err
	}
	if r.cfg.Images == nil {
		return nil, errs.About(errs.Unsupported, r.node, "image_download_source is local, but this peer keeps no artifacts")
	}
	wctx, alive, stop := r.watchStall(ctx, p.step, "the peers came no further with the image for %v: does a peer reach its server, do the peers reach each other, and have two of them room for it?")
	defer stop()
	seen := "nothing"
	a, err := r.cfg.Images.Image(wctx, []string{args.Image}, strings.ToLower(args.Checksum), imageName(args.Image), func(done, total uint64, what string) {
		seen = fmt.Sprintf("%s, %d bytes", what, done)
		r.gate.Progress(r.token)
		alive()
		r.cfg.Journal.Update(r.node, func(f *api.LiveFacts) {
			f.Progress = &api.Progress{
				CmdId: p.flow.GetCmdId(), Step: node.IDOf(p.step).String(), DoneBytes: done, TotalBytes: total,
				Message: what, AtMs: r.cfg.Clock.Now().UnixMilli(),
			}
		})
	})
	if err != nil && wctx.Err() != nil && ctx.Err() == nil {
		// Not to be tried again, whatever the last error was: the lock ends soon.
		cause := context.Cause(wctx)
		if errors.Is(err, cause) {
			return nil, errs.About(errs.Internal, r.node, "%v (last seen: %s)", cause, seen)
		}
		return nil, errs.About(errs.Internal, r.node, "%v (last seen: %s; last error: %v)", cause, seen, err)
	}
	if err != nil {
		return nil, errs.About(errs.KindOf(err), r.node, "the peers could not get the image: %w", err)
	}
	urls := r.cfg.Images.URLs(a.GetDigest(), r.node)
	if len(urls) == 0 {
		return nil, errs.About(errs.Unreachable, r.node, "no peer says where machines can get files from")
	}
	return urls, nil
}

// imageSource is what the deploy, else instance_info, else driver_info, else
// the settings of the cluster say.
func imageSource(args DeployArgs, n *api.Node, s *api.Settings) (string, error) {
	said := []string{args.Source}
	for _, doc := range [][]byte{n.GetInstanceInfo(), n.GetDriverInfo()} {
		var d struct {
			Source json.RawMessage `json:"image_download_source"`
		}
		var v string
		if json.Unmarshal(doc, &d) == nil && len(d.Source) > 0 && json.Unmarshal(d.Source, &v) != nil {
			return "", errs.About(errs.Invalid, n.GetId(), "image_download_source of node %s is no text", node.Label(n))
		}
		said = append(said, v)
	}
	for _, v := range append(said, s.GetImageDownloadSource()) {
		if v != "" {
			return v, CheckSource(v)
		}
	}
	return SourceHTTP, nil
}

// imageName is what people call an image: the last part of its URL.
func imageName(raw string) string {
	file, _, _ := strings.Cut(raw, "?") // nothing of the query, or of the user
	host, _, _ := strings.Cut(strings.TrimPrefix(file[strings.Index(file, "://")+1:], "//"), "/")
	if i := strings.LastIndex(host, "@"); i >= 0 {
		file = file[strings.Index(file, host)+i+1:]
	}
	name := strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f || c == '/' {
			return '-'
		}
		return c
	}, path.Base(file))
	return name[:min(len(name), 200)]
}
