package pxe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
)

// Files gives artifacts by their SHA-256 digest, also those that have to be
// fetched from another peer first. errs.NotFound when there is no such
// artifact. Package artifact implements it.
type Files interface {
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
}

// defaultArch is that of nodes that say nothing.
const defaultArch = "x86_64"

// published fills in the ramdisk that is published for a node's architecture,
// if there is one.
func (r *BootRecord) published(v *fsm.View, node *api.Node) {
	if d := v.Ramdisk(archOf(node), bootpath.DefaultPurpose); d != nil {
		r.Kernel, r.Initramfs = d.GetKernel(), d.GetInitramfs()
	}
}

// archOf is the architecture in a node's properties.
func archOf(node *api.Node) string {
	var props struct {
		Arch string `json:"cpu_arch"`
	}
	if json.Unmarshal(node.GetProperties(), &props) != nil || props.Arch == "" {
		return defaultArch
	}
	return props.Arch
}

// kernelPath and initramfsPath are where the ramdisk of a record is at every
// peer: an artifact when one is published, else a file of the operator's.
func (r BootRecord) kernelPath() string {
	if r.Kernel != "" {
		return bootpath.Artifact + r.Kernel
	}
	return pathKernel
}

func (r BootRecord) initramfsPath() string {
	if r.Initramfs != "" {
		return bootpath.Artifact + r.Initramfs
	}
	return pathInitramfs
}

// artifact answers /artifact/sha256/<digest>, with ranges.
func (s *httpService) artifact(w http.ResponseWriter, r *http.Request, digest string) {
	if s.cfg.Files == nil || !validDigest.MatchString(digest) {
		http.NotFound(w, r)
		return
	}
	v := s.cfg.Store.View()
	from := remoteOf(r)
	m := machineAt(v, from)
	stage := artifactStage(v.Artifact(digest))
	say := func(format string, args ...any) {
		if stage != "" {
			s.line.add(m, kindHTTP, stage, fmt.Sprintf("%s %s%s from %s: ", r.Method, bootpath.Artifact, digest[:12], from)+fmt.Sprintf(format, args...))
		}
	}
	f, err := s.cfg.Files.Open(r.Context(), digest)
	if errors.Is(err, errs.NotFound) {
		say("no such artifact")
		http.NotFound(w, r)
		return
	}
	if err != nil {
		s.log.Warn("artifact cannot be served", "artifact", digest, "err", err)
		say("not to be had at this peer now")
		w.Header().Set("Retry-After", "2")
		http.Error(w, "not to be had at this peer now", http.StatusServiceUnavailable)
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("ETag", `"sha256:`+digest+`"`) // the same at every peer: downloads go on anywhere
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if r.Method == http.MethodHead {
		http.ServeContent(w, r, "", time.Time{}, f)
		return
	}
	send(w, r, "", time.Time{}, f, say)
}

// artifactStage is the boot stage that an artifact is part of, "" for none.
func artifactStage(a *api.Artifact) string {
	switch a.GetKind() {
	case api.Artifact_KERNEL:
		return stageKernel
	case api.Artifact_INITRAMFS:
		return stageInitramfs
	}
	return ""
}
