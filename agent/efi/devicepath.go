package efi

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/ironring/ironring/internal/errs"
)

// Types and subtypes of device path nodes (UEFI specification, chapter 10).
const (
	typeMedia   = 0x04
	subHard     = 0x01
	subFilePath = 0x04
	typeEnd     = 0x7f
	subEndAll   = 0xff

	nodeHeader = 4
	hardLen    = 42
)

// Node is one node of a device path as it stands in memory.
type Node struct {
	Type, SubType byte
	Data          []byte // without the four bytes of header
}

// DevicePath is a list of nodes without the end node.
type DevicePath []Node

// SignatureType says what identifies the partition's disk in HardDrive.
type SignatureType byte

// The kinds of signature that a hard drive node can hold.
const (
	SignatureNone SignatureType = 0
	SignatureMBR  SignatureType = 1 // 32-bit disk signature of the MBR
	SignatureGUID SignatureType = 2 // GUID of the GPT partition
)

// HardDrive is the node HD(): one partition, wherever its disk is plugged in.
type HardDrive struct {
	Number    uint32 // partition number, from 1
	Start     uint64 // first logical block
	Size      uint64 // in logical blocks
	Signature [16]byte
	Format    byte // 1 MBR, 2 GPT
	SigType   SignatureType
}

// Node encodes h.
func (h HardDrive) Node() Node {
	b := make([]byte, hardLen-nodeHeader)
	binary.LittleEndian.PutUint32(b, h.Number)
	binary.LittleEndian.PutUint64(b[4:], h.Start)
	binary.LittleEndian.PutUint64(b[12:], h.Size)
	copy(b[20:36], h.Signature[:])
	b[36], b[37] = h.Format, byte(h.SigType)
	return Node{Type: typeMedia, SubType: subHard, Data: b}
}

// HardDrive decodes n; false when n is another kind of node.
func (n Node) HardDrive() (HardDrive, bool) {
	if n.Type != typeMedia || n.SubType != subHard || len(n.Data) != hardLen-nodeHeader {
		return HardDrive{}, false
	}
	h := HardDrive{
		Number:  binary.LittleEndian.Uint32(n.Data),
		Start:   binary.LittleEndian.Uint64(n.Data[4:]),
		Size:    binary.LittleEndian.Uint64(n.Data[12:]),
		Format:  n.Data[36],
		SigType: SignatureType(n.Data[37]),
	}
	copy(h.Signature[:], n.Data[20:36])
	return h, true
}

// FilePath is the node of a file inside the partition; path uses backslashes.
func FilePath(path string) Node {
	return Node{Type: typeMedia, SubType: subFilePath, Data: encodeString(path)}
}

// FilePath decodes n; false when n is another kind of node.
func (n Node) FilePath() (string, bool) {
	if n.Type != typeMedia || n.SubType != subFilePath {
		return "", false
	}
	s, _, ok := decodeString(n.Data)
	return s, ok
}

// Encode gives the bytes of p with its end node.
func (p DevicePath) Encode() []byte {
	var b []byte
	for _, n := range p {
		b = append(b, n.Type, n.SubType)
		b = binary.LittleEndian.AppendUint16(b, uint16(nodeHeader+len(n.Data)))
		b = append(b, n.Data...)
	}
	return append(b, typeEnd, subEndAll, nodeHeader, 0)
}

// ParseDevicePath reads the nodes up to the end node and returns what follows
// it. Vendors append further paths there, so that is not an error.
func ParseDevicePath(b []byte) (p DevicePath, rest []byte, err error) {
	for {
		if len(b) < nodeHeader {
			return nil, nil, errs.New(errs.Invalid, "device path has no end node")
		}
		n := int(binary.LittleEndian.Uint16(b[2:]))
		if n < nodeHeader || n > len(b) {
			return nil, nil, errs.New(errs.Invalid, "device path node of %d bytes where %d are left", n, len(b))
		}
		if b[0] == typeEnd && b[1] == subEndAll {
			return p, b[n:], nil
		}
		p = append(p, Node{Type: b[0], SubType: b[1], Data: append([]byte(nil), b[nodeHeader:n]...)})
		b = b[n:]
	}
}

// String shows p for logs: HD(1,GPT,guid,0x800,0x1d800)/\EFI\BOOT\BOOTX64.EFI.
func (p DevicePath) String() string {
	var parts []string
	for _, n := range p {
		if h, ok := n.HardDrive(); ok {
			sig := FormatGUID(h.Signature)
			if h.SigType == SignatureMBR {
				sig = fmt.Sprintf("%#08x", binary.LittleEndian.Uint32(h.Signature[:]))
			}
			kind := map[byte]string{1: "MBR", 2: "GPT"}[h.Format]
			parts = append(parts, fmt.Sprintf("HD(%d,%s,%s,%#x,%#x)", h.Number, kind, sig, h.Start, h.Size))
		} else if f, ok := n.FilePath(); ok {
			parts = append(parts, f)
		} else {
			parts = append(parts, fmt.Sprintf("Path(%d,%d,%x)", n.Type, n.SubType, n.Data))
		}
	}
	return strings.Join(parts, "/")
}

// encodeString is s in UTF-16, little endian, with its NUL.
func encodeString(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return append(b, 0, 0)
}

// decodeString reads UTF-16 up to its NUL and returns what follows; not ok
// when there is no NUL.
func decodeString(b []byte) (s string, rest []byte, ok bool) {
	var us []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			return string(utf16.Decode(us)), b[i+2:], true
		}
		us = append(us, u)
	}
	return "", nil, false
}
