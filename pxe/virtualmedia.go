package pxe

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/kernelargs"
	"github.com/ironring/ironring/internal/netdata"
	"github.com/ironring/ironring/pxe/media"
)

// MediaRecord is Record for a node that boots from virtual media: its ports
// play no part, except that an agent that asks for DHCP does so on the first.
func MediaRecord(v *fsm.View, nodeID string) BootRecord {
	r := BootRecord{Target: api.BootTarget_BOOT_NOTHING}
	node := v.Node(nodeID)
	if node == nil {
		return r
	}
	r.Known, r.NodeID, r.State, r.Nonce = true, node.GetId(), node.GetState(), node.GetBoot().GetNonce()
	for _, m := range ranked(v.Members(), nodeID) {
		if a, ok := memberAddress(m.GetAgentAddress(), netip.Addr{}); ok && len(r.AgentPeers) < maxLinePeers {
			r.AgentPeers = append(r.AgentPeers, a)
		}
	}
	for _, p := range v.PortsOf(nodeID) {
		if p.GetPxeEnabled() && r.MAC == "" {
			r.MAC = p.GetAddress()
		}
	}
	args, err := kernelargs.OfNode(node.GetProperties())
	r.KernelArgs = args
	r.published(v, node)
	switch {
	case node.GetBoot().GetTarget() != api.BootTarget_BOOT_RAMDISK:
		r.Reason = "the node does not boot the ramdisk now"
	case err != nil:
		r.Reason = "the node's kernel arguments cannot stand on a kernel line"
	case !validNodeID.MatchString(r.NodeID) || !validNonce.MatchString(r.Nonce):
		r.Reason = "the node has no boot nonce"
	case len(r.AgentPeers) == 0:
		r.Reason = "no peer says where agents can reach it"
	case r.Kernel == "" || r.Initramfs == "":
		r.Reason = "no ramdisk is published for " + archOf(node) + ": `ironring ramdisk build --publish`"
	default:
		r.Target = api.BootTarget_BOOT_RAMDISK
	}
	return r
}

// medium answers /media/<node>/<nonce>.iso, with ranges: BMCs read it in
// pieces, in any order. Who does not know the nonce gets what it would get for
// a node that does not exist.
func (s *httpService) medium(w http.ResponseWriter, r *http.Request, name string) {
	id, nonce := bootpath.ParseMedium(name)
	v := s.cfg.Store.View()
	rec := MediaRecord(v, id)
	want := v.Node(id).GetBoot().GetNonce()
	if s.cfg.Media == nil || want == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(want)) != 1 {
		http.NotFound(w, r)
		return
	}
	from := remoteOf(r)
	m := machine{mac: rec.MAC, nodeID: rec.NodeID, nonce: want}
	say := func(format string, args ...any) {
		s.line.add(m, kindHTTP, stageScript, fmt.Sprintf("%s boot medium from %s: ", r.Method, from)+fmt.Sprintf(format, args...))
	}
	refuse := func(status int, why string) {
		say("refused, %s", why)
		http.Error(w, why, status)
	}
	switch {
	case rec.Target != api.BootTarget_BOOT_RAMDISK:
		refuse(http.StatusNotFound, rec.Reason)
		return
	case s.cfg.stale() && !underWork(rec.State):
		refuse(http.StatusServiceUnavailable, "this peer has no contact with a leader")
		return
	}
	network, err := netdata.OfNode(v.Node(id).GetProperties())
	if err != nil {
		refuse(http.StatusServiceUnavailable, err.Error())
		return
	}
	if network != nil {
		rec.MAC = "" // the data says which NIC
	}
	im, err := s.cfg.Media.Image(r.Context(), rec.Kernel, rec.Initramfs, media.Params{KernelLine: rec.KernelLine(s.cfg.line()), Network: network})
	if err != nil {
		s.log.Warn("boot medium cannot be made", "node", id, "err", err)
		why := "the boot medium cannot be made at this peer now"
		if errors.Is(err, errs.Unsupported) {
			why = "this peer lacks the boot loader for virtual media"
		}
		refuse(http.StatusServiceUnavailable, why)
		return
	}
	defer im.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		http.ServeContent(w, r, "", time.Time{}, im)
		say("%d bytes", im.Size())
		return
	}
	d := newDownload(w, func(sent int64, took time.Duration) {
		say("%d bytes sent in %.1f s, going on", sent, took.Seconds())
	})
	http.ServeContent(d, r, "", time.Time{}, im)
	if rng := r.Header.Get("Range"); rng == "" || strings.HasPrefix(rng, "bytes=0-") { // one line for each medium, not for each piece
		say("%d, %d bytes sent in %.1f s", d.status, d.sent, time.Since(d.start).Seconds())
	}
}
