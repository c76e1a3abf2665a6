// Package qcow2test makes qcow2 files for tests, good ones and bad ones. It is
// not for anything else: it keeps no reference counts.
package qcow2test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/agent/qcow2"
)

// Kind is how a cluster is kept.
type Kind int

// The kinds of clusters.
const (
	Hole   Kind = iota // not allocated
	Zero               // allocated, but flagged to read as zero
	Plain              // as it is
	Packed             // compressed
	kinds
)

// Config of a file. Cluster i of the disk is of kind Kinds[i%len(Kinds)].
type Config struct {
	Version     uint32 // 3 if 0
	ClusterBits uint32 // 16 if 0
	Size        int64  // of the disk
	Compression qcow2.Compression
	Kinds       []Kind
	Shuffle     bool // clusters in the file in another order than on the disk
	TablesLast  bool // second-level tables behind the data
	Seed        int64
}

// File is a file and what the disk must hold.
type File struct {
	Bytes  []byte
	Disk   []byte
	L1, L2 int // where the first-level and the first second-level table are
}

// Make builds a file.
func Make(tb testing.TB, cfg Config) File {
	tb.Helper()
	if cfg.Version == 0 {
		cfg.Version = 3
	}
	if cfg.ClusterBits == 0 {
		cfg.ClusterBits = 16
	}
	m := &maker{tb: tb, cfg: cfg, cluster: 1 << cfg.ClusterBits, rnd: rand.New(rand.NewPCG(uint64(cfg.Seed), 1)), noise: rand.NewChaCha8([32]byte{byte(cfg.Seed)})}
	return m.make()
}

type maker struct {
	tb      testing.TB
	cfg     Config
	cluster int
	rnd     *rand.Rand
	noise   *rand.ChaCha8
	out     []byte
	disk    []byte
	tail    int // where the next compressed cluster may go; 0: nowhere
	zstd    *zstd.Encoder
	defl    *flate.Writer
}

// alloc adds n clusters and says where.
func (m *maker) alloc(n int) int {
	at := (len(m.out) + m.cluster - 1) / m.cluster * m.cluster
	m.out = append(m.out, make([]byte, at+n*m.cluster-len(m.out))...)
	return at
}

func (m *maker) make() File {
	c := m.cluster
	m.disk = make([]byte, m.cfg.Size)
	clusters := (len(m.disk) + c - 1) / c
	perTable := c / 8
	tables := (clusters + perTable - 1) / perTable
	m.alloc(2) // the header, and something that nobody needs
	l1 := m.alloc((8*tables + c - 1) / c)
	l2 := make([]int, tables)
	if !m.cfg.TablesLast {
		for i := range l2 {
			l2[i] = m.alloc(1)
		}
	}
	entries := make([]uint64, clusters)
	order := m.rnd.Perm(clusters)
	for i := range clusters {
		k := i
		if m.cfg.Shuffle {
			k = order[i]
		}
		entries[k] = m.put(k)
	}
	if m.cfg.TablesLast {
		for i := range l2 {
			l2[i] = m.alloc(1)
		}
	}
	for i, e := range entries {
		binary.BigEndian.PutUint64(m.out[l2[i/perTable]+8*(i%perTable):], e)
	}
	for i, at := range l2 {
		binary.BigEndian.PutUint64(m.out[l1+8*i:], uint64(at)|1<<63)
	}
	m.header(l1, tables)
	return File{Bytes: m.out, Disk: m.disk, L1: l1, L2: l2[0]}
}

// put keeps cluster k and gives its entry.
func (m *maker) put(k int) uint64 {
	kind := m.cfg.Kinds[k%len(m.cfg.Kinds)]
	part := m.disk[k*m.cluster : min(len(m.disk), (k+1)*m.cluster)]
	switch kind {
	case Hole:
		return 0
	case Zero:
		at := m.alloc(1)
		m.tail = 0
		m.fill(m.out[at:]) // must not come to light
		return uint64(at) | 1
	case Plain:
		m.fill(part)
		at := m.alloc(1)
		m.tail = 0
		copy(m.out[at:], part)
		return uint64(at) | 1<<63
	}
	for i := 0; i < len(part); i += 16 { // compresses to something
		m.fill(part[i : i+min(2, len(part)-i)])
	}
	data := m.pack(part)
	if m.tail == 0 || m.tail+len(data) > len(m.out) {
		m.tail = m.alloc(1)
	}
	at := m.tail
	copy(m.out[at:], data)
	m.tail += len(data)
	bits := 62 - (m.cfg.ClusterBits - 8)
	sectors := (at+len(data)-1)/512 - at/512
	return 1<<62 | uint64(sectors)<<bits | uint64(at)
}

// fill makes noise.
func (m *maker) fill(p []byte) {
	if _, err := m.noise.Read(p); err != nil {
		m.tb.Fatal(err)
	}
}

func (m *maker) pack(part []byte) []byte {
	whole := make([]byte, m.cluster)
	copy(whole, part)
	var out []byte
	if m.cfg.Compression == qcow2.Zstd {
		out = m.packZstd(whole)
	} else {
		out = m.packDeflate(whole)
	}
	if len(out) >= m.cluster {
		m.tb.Fatal("a cluster does not compress")
	}
	return out
}

func (m *maker) packZstd(p []byte) []byte {
	if m.zstd == nil {
		var err error
		if m.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest)); err != nil {
			m.tb.Fatal(err)
		}
	}
	return m.zstd.EncodeAll(p, nil)
}

func (m *maker) packDeflate(p []byte) []byte {
	var out bytes.Buffer
	if m.defl == nil {
		var err error
		if m.defl, err = flate.NewWriter(&out, flate.BestSpeed); err != nil {
			m.tb.Fatal(err)
		}
	}
	m.defl.Reset(&out)
	if _, err := m.defl.Write(p); err != nil {
		m.tb.Fatal(err)
	}
	if err := m.defl.Close(); err != nil {
		m.tb.Fatal(err)
	}
	return out.Bytes()
}

func (m *maker) header(l1, tables int) {
	be := binary.BigEndian
	h := m.out
	copy(h, qcow2.Magic)
	be.PutUint32(h[4:], m.cfg.Version)
	be.PutUint32(h[20:], m.cfg.ClusterBits)
	be.PutUint64(h[24:], uint64(m.cfg.Size))
	be.PutUint32(h[36:], uint32(tables))
	be.PutUint64(h[40:], uint64(l1))
	if m.cfg.Version == 3 {
		be.PutUint32(h[96:], 4)
		be.PutUint32(h[100:], 112)
		if m.cfg.Compression != qcow2.Deflate {
			be.PutUint64(h[72:], 1<<3)
			h[104] = byte(m.cfg.Compression)
		}
	}
}

// Random is a config out of bytes, for fuzzing.
func Random(seed int64) Config {
	r := rand.New(rand.NewPCG(uint64(seed), 2))
	cfg := Config{
		Version: 2 + uint32(r.IntN(2)), ClusterBits: 9 + uint32(r.IntN(6)), Shuffle: r.IntN(2) == 0, TablesLast: r.IntN(2) == 0, Seed: seed,
		Kinds: make([]Kind, 1+r.IntN(7)),
	}
	cfg.Size = 1 + r.Int64N(40<<cfg.ClusterBits)
	if cfg.Version == 3 {
		cfg.Compression = qcow2.Compression(r.IntN(2))
	}
	for i := range cfg.Kinds {
		for cfg.Kinds[i] = Kind(r.IntN(int(kinds))); cfg.Kinds[i] == Zero && cfg.Version == 2; {
			cfg.Kinds[i] = Kind(r.IntN(int(kinds)))
		}
		if cfg.Kinds[i] == Packed && cfg.ClusterBits < 11 {
			cfg.Kinds[i] = Plain // too small to compress
		}
	}
	return cfg
}
