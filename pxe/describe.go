package pxe

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// maskedNonce stands in a description where the boot nonce is.
const maskedNonce = "********************************"

// Describe says what this peer would answer a node's machine now: the record
// of each port, the script as the machine would get it (the nonce masked), and
// the files behind it.
func (s *Server) Describe(nodeID string) (*api.BootRecordReply, error) {
	v := s.cfg.Store.View()
	if v.Node(nodeID) == nil {
		return nil, errs.About(errs.NotFound, nodeID, "no node %s", nodeID)
	}
	out := &api.BootRecordReply{NodeId: nodeID, Peer: s.cfg.Self, Index: v.Index(), Stale: s.cfg.stale(), Dhcp: "off"}
	if s.cfg.DHCPListen != "" {
		out.Dhcp = modeName(s.cfg.DHCPMode)
	}
	for _, p := range v.PortsOf(nodeID) {
		b := &api.BootPort{Mac: p.GetAddress()}
		var on *api.Network // where the machine is known to be
		for _, n := range v.Networks() {
			a := v.Address(n.GetName(), p.GetAddress())
			if a != nil && on == nil {
				on = n
			}
			if a != nil || n.GetMode() != api.DHCPMode_DHCP_FULL {
				b.Addresses = append(b.Addresses, &api.BootAddress{Network: n.GetName(), Mode: n.GetMode(), Address: a.GetIp()})
			}
		}
		rec := RecordOn(v, p.GetAddress(), on)
		b.Target, b.Reason, b.Nonce = rec.Target, rec.Reason, rec.Nonce != ""
		b.AgentPeers, b.BootPeers = rec.AgentPeers, rec.BootPeers
		if b.Nonce {
			rec.Nonce = maskedNonce
			b.KernelLine = rec.KernelLine(s.cfg.line())
		}
		b.Script = string(rec.Script(s.cfg.line()))
		out.Ports = append(out.Ports, b)
	}
	out.Files = s.files()
	return out, nil
}

func modeName(m api.DHCPMode) string {
	return strings.ToLower(strings.TrimPrefix(m.String(), "DHCP_"))
}

// files are those that machines may ask this peer for.
func (s *Server) files() []*api.BootFile {
	var out []*api.BootFile
	add := func(name, path, by, dir string) {
		f := &api.BootFile{Name: name, Path: path, UsedBy: by}
		d, err := s.digests.of(filepath.Join(dir, name))
		switch {
		case dir == "":
			f.Problem = "no ramdisk directory is configured"
		case errors.Is(err, fs.ErrNotExist):
			f.Problem = "is missing"
		case err != nil:
			f.Problem = err.Error()
		default:
			f.Size, f.Sha256 = uint64(d.size), d.sha256
		}
		out = append(out, f)
	}
	for _, path := range []string{pathKernel, pathInitramfs} {
		add(ramdiskFiles[path].file, path, "iPXE, by HTTP", s.cfg.RamdiskDir)
	}
	by := map[string]string{}
	for _, arch := range slices.Sorted(maps.Keys(loaders)) {
		l := loaders[arch]
		how := l.name + " PXE, by TFTP"
		if l.kind == httpClient {
			how = l.name + " HTTP boot"
		}
		if !strings.Contains(by[l.file], how) {
			by[l.file] = strings.TrimPrefix(by[l.file]+"; "+how, "; ")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		add(programs[name], pathIPXE+name, cmp.Or(by[name], "who asks by name"), s.cfg.IPXEDir)
	}
	return out
}

// digests remembers the digests of files: an initramfs may be large.
type digests struct {
	mu sync.Mutex
	by map[string]digested // guarded by mu; as many as there are names in the tables
}

type digested struct {
	size    int64
	changed time.Time
	sha256  string
}

// of reads a file and gives its size and digest. Two callers may read it at
// once; both get the same.
func (d *digests) of(path string) (digested, error) {
	f, st, err := openRegular(path)
	if err != nil {
		return digested{}, err
	}
	defer f.Close()
	d.mu.Lock()
	was := d.by[path]
	d.mu.Unlock()
	if was.sha256 != "" && was.size == st.Size() && was.changed.Equal(st.ModTime()) {
		return was, nil
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return digested{}, errs.New(errs.Internal, "cannot be read: %w", err)
	}
	now := digested{size: n, changed: st.ModTime(), sha256: hex.EncodeToString(h.Sum(nil))}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]digested{}
	}
	d.by[path] = now
	return now, nil
}
