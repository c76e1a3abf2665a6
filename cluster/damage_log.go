package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/ironring/ironring/cluster/boltcheck"
)

// ownerKey is where the log says whose it is, beside Raft's own values.
var ownerKey = []byte("IronringOwner")

// stableKeys are all keys of the log's stable values.
var stableKeys = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand", string(ownerKey)}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkLogFile reads the log's file as it is, before bbolt maps it.
func (d *dataDir) checkLogFile(id *identity) error {
	name := filepath.Join(raftDir, logFile)
	f, err := os.Open(d.file(name))
	if err != nil {
		return unusable(d.file(name), "open the log", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return unusable(d.file(name), "open the log", err)
	case !info.Mode().IsRegular():
		return d.lostState(id, name, "is no file")
	case info.Size() == 0 && !id.RaftMade:
		return nil // this process died when it made it
	case info.Size() == 0:
		return d.lostState(id, name, "is empty")
	}
	keys, entries := map[string]bool{}, 0
	err = boltcheck.Check(f, info.Size(), func(bucket, key, _ []byte) error {
		switch {
		case string(bucket) == "logs" && len(key) == 8:
			entries++
			return nil
		case string(bucket) == "conf" && slices.Contains(stableKeys, string(key)):
			keys[string(key)] = true
			return nil
		}
		return fmt.Errorf("it has the key %.32q in %.32q, which is not ours", key, bucket)
	})
	var io *fs.PathError
	switch {
	case errors.As(err, &io):
		return unusable(d.file(name), "read the log", err)
	case err != nil:
		return d.lostState(id, name, "is damaged ("+err.Error()+")")
	case entries > 0 && !keys["CurrentTerm"]:
		return d.lostState(id, name, "is damaged (it has entries but no term)")
	case keys["LastVoteCand"] && !keys["LastVoteTerm"]:
		return d.lostState(id, name, "is damaged (it has half a vote)")
	}
	return nil
}

// checkOwner makes sure that the log is this peer's, and marks a new one.
func (s checkedStore) checkOwner(d *dataDir, id *identity) error {
	name := filepath.Join(raftDir, logFile)
	owner, err := s.Get(ownerKey)
	want := id.ClusterID + " " + id.ID
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound) && !id.RaftMade:
		if err := s.Set(ownerKey, []byte(want)); err != nil {
			return unusable(d.file(name), "mark the log", err)
		}
		return nil
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return d.lostState(id, name, "is damaged (it does not say whose it is)")
	case err != nil:
		return d.lostState(id, name, "is damaged ("+err.Error()+")")
	case string(owner) != want:
		cluster, member, _ := bytes.Cut(owner, []byte(" "))
		return d.lostState(id, name, fmt.Sprintf("belongs to member %s of cluster %s, not to %s of %s", member, cluster, id.ID, id.ClusterID))
	}
	return nil
}

// checkedStore gives each entry and each stable value a checksum on disk, and
// refuses what does not have its own: a flipped bit must not become a state
// that the other peers do not have, or another vote. The checksum is not
// replicated.
type checkedStore struct{ logStore }

// errChecksum is damage that no structure shows.
func errChecksum(what string) error { return fmt.Errorf("%s has a wrong checksum", what) }

func entrySum(l *raft.Log, extensions []byte) uint32 {
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, extensions)
}

// StoreLog implements raft.LogStore.
func (s checkedStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s checkedStore) StoreLogs(logs []*raft.Log) error {
	summed, copies := make([]*raft.Log, len(logs)), make([]raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = binary.BigEndian.AppendUint32(slices.Clone(l.Extensions), entrySum(l, l.Extensions))
		summed[i] = &copies[i]
	}
	return s.logStore.StoreLogs(summed)
}

// GetLog implements raft.LogStore.
func (s checkedStore) GetLog(index uint64, l *raft.Log) error {
	*l = raft.Log{}
	if err := s.logStore.GetLog(index, l); err != nil {
		return err
	}
	at := len(l.Extensions) - 4
	if at < 0 || l.Index != index || binary.BigEndian.Uint32(l.Extensions[at:]) != entrySum(l, l.Extensions[:at]) {
		return errChecksum(fmt.Sprintf("entry %d", index))
	}
	if l.Extensions = l.Extensions[:at]; at == 0 {
		l.Extensions = nil
	}
	return nil
}

func valueSum(key, val []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
}

// Set implements raft.StableStore.
func (s checkedStore) Set(key, val []byte) error {
	return s.logStore.Set(key, binary.BigEndian.AppendUint32(slices.Clone(val), valueSum(key, val)))
}

// Get implements raft.StableStore.
func (s checkedStore) Get(key []byte) ([]byte, error) {
	b, err := s.logStore.Get(key)
	if err != nil {
		return nil, err
	}
	at := len(b) - 4
	if at < 0 || binary.BigEndian.Uint32(b[at:]) != valueSum(key, b[:at]) {
		return nil, errChecksum(string(key))
	}
	return b[:at], nil
}

// SetUint64 implements raft.StableStore.
func (s checkedStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore.
func (s checkedStore) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, errChecksum(string(key))
	}
	return binary.BigEndian.Uint64(b), nil
}
