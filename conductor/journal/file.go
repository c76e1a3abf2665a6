package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// A file is a row of frames: mark, length, CRC-32C, event. A write that a
// crash or a full disk cut leaves a damaged frame, after which later writes
// append: readers find the next frame by its mark.
const (
	frameHead = len(frameMark) + 8
	maxFrame  = 64 << 10
)

const frameMark = "\xf1\x9eJ\x00"

var crcTable = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b []byte, ev *api.JournalEvent) ([]byte, error) {
	raw, err := proto.Marshal(ev)
	if err != nil {
		return b, err
	}
	b = append(b, frameMark...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(raw)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(raw, crcTable))
	return append(b, raw...), nil
}

// parseFrames gives the events of a file, whatever stands between them.
func parseFrames(b []byte) []*api.JournalEvent {
	var out []*api.JournalEvent
	for {
		i := bytes.Index(b, []byte(frameMark))
		if i < 0 {
			return out
		}
		b = b[i:]
		if ev, size := parseFrame(b); ev != nil {
			out = append(out, ev)
			b = b[size:]
		} else {
			b = b[1:]
		}
	}
}

// parseFrame reads the frame at the start of b; nil when it is damaged.
func parseFrame(b []byte) (ev *api.JournalEvent, size int) {
	if len(b) < frameHead {
		return nil, 0
	}
	n := binary.LittleEndian.Uint32(b[len(frameMark):])
	if n > maxFrame || len(b)-frameHead < int(n) {
		return nil, 0
	}
	raw := b[frameHead : frameHead+int(n)]
	if crc32.Checksum(raw, crcTable) != binary.LittleEndian.Uint32(b[len(frameMark)+4:]) {
		return nil, 0
	}
	ev = new(api.JournalEvent)
	if proto.Unmarshal(raw, ev) != nil {
		return nil, 0
	}
	return ev, frameHead + int(n)
}

// Node ids become file names: only UUIDs are taken.
var validNode = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (j *Journal) path(node string) string {
	return filepath.Join(j.cfg.Dir, node[:2], node+".log")
}

// writeNode appends events to the node's file, which it renames first when it
// would grow too large.
func (j *Journal) writeNode(node string, evs []*api.JournalEvent) error {
	var b []byte
	for _, ev := range evs {
		var err error
		if b, err = appendFrame(b, ev); err != nil {
			return err
		}
	}
	j.files.Lock()
	defer j.files.Unlock()
	path := j.path(node)
	if st, err := os.Stat(path); err == nil && st.Size()+int64(len(b)) > segmentBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (j *Journal) readNode(node string) ([]*api.JournalEvent, error) {
	j.files.RLock()
	defer j.files.RUnlock()
	var out []*api.JournalEvent
	for _, path := range []string{j.path(node) + ".1", j.path(node)} {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		out = append(out, parseFrames(b)...)
	}
	return out, nil
}

// Sweep removes the files of nodes that are gone. keep says of a node that it
// is still there; files that were written to in the last day stay in any case.
func (j *Journal) Sweep(keep func(node string) bool) error {
	old := j.cfg.Clock.Now().Add(-24 * time.Hour)
	return filepath.WalkDir(j.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		node, isLog := strings.CutSuffix(strings.TrimSuffix(d.Name(), ".1"), ".log")
		if !isLog || !validNode.MatchString(node) || keep(node) {
			return nil
		}
		j.files.Lock()
		defer j.files.Unlock()
		info, err := d.Info()
		if err != nil || info.ModTime().After(old) {
			return nil // just removed, or in use
		}
		return os.Remove(path)
	})
}

// seqReserve is by how much the sequence numbers of two starts differ at
// least.
const seqReserve = 1 << 32

// firstSeq is a number above all that this peer has used, also when the wall
// clock was set back. With an error, it is above them only if it was not.
func firstSeq(dir string, now time.Time) (uint64, error) {
	path := filepath.Join(dir, "seq")
	seq := uint64(max(now.UnixMicro(), 1))
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return seq, err
	}
	if len(b) == 8 {
		seq = max(seq, binary.LittleEndian.Uint64(b))
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, binary.LittleEndian.AppendUint64(nil, seq+seqReserve), 0o600); err != nil {
		return seq, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return seq, fmt.Errorf("replace %s: %w", path, err)
	}
	return seq, nil
}

func full(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return false
	}
	used := st.Blocks - st.Bfree
	return used*100 > (used+st.Bavail)*fullPercent
}
