package fsm

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Digest is the digest of the state as it is now, and the index it is of.
func (s *Store) Digest() (sum [32]byte, index uint64) {
	v := s.View()
	return v.Digest(), v.Index()
}

// Digest is a digest over all records and counters. Two peers at the same
// index have the same one. The index itself is not in it, so that a refused
// command leaves it unchanged.
//
// The encoding is our own, because that of package proto may change with its
// version: each record as kind, then its fields in order of number, each as
// number and value; 0 ends a message. Numbers are eight bytes, text and bytes
// have their length before them.
func (v *View) Digest() [32]byte {
	h := sha256.New()
	e := &encoder{to: bufio.NewWriterSize(h, 32<<10)}
	e.record(kindHead, v.head.globals())
	for kind, m := range v.records() {
		e.record(kind, m)
	}
	must(e.to.Flush())
	return [32]byte(h.Sum(nil))
}

// encoder writes into a hash, which never fails.
type encoder struct {
	to  *bufio.Writer
	num [8]byte
}

func (e *encoder) record(kind byte, m proto.Message) {
	e.number(uint64(kind))
	e.message(m.ProtoReflect())
}

func (e *encoder) number(n uint64) {
	binary.BigEndian.PutUint64(e.num[:], n)
	_, err := e.to.Write(e.num[:])
	must(err)
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	_, err := e.to.WriteString(s)
	must(err)
}

func (e *encoder) message(m protoreflect.Message) {
	for _, fd := range fieldsOf(m.Descriptor()) {
		if !m.Has(fd) {
			continue
		}
		e.number(uint64(fd.Number()))
		if !fd.IsList() {
			e.value(fd, m.Get(fd))
			continue
		}
		list := m.Get(fd).List()
		e.number(uint64(list.Len()))
		for i := range list.Len() {
			e.value(fd, list.Get(i))
		}
	}
	e.number(0)
}

func (e *encoder) value(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		e.message(v.Message())
	case protoreflect.StringKind:
		e.text(v.String())
	case protoreflect.BytesKind:
		b := v.Bytes()
		e.number(uint64(len(b)))
		_, err := e.to.Write(b)
		must(err)
	case protoreflect.BoolKind:
		n := uint64(0)
		if v.Bool() {
			n = 1
		}
		e.number(n)
	case protoreflect.EnumKind:
		e.number(uint64(v.Enum()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		e.number(v.Uint())
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		e.number(uint64(v.Int()))
	case protoreflect.DoubleKind:
		e.number(math.Float64bits(v.Float()))
	default:
		panic("fsm: no canonical form for " + fd.Kind().String() + " of " + string(fd.FullName()))
	}
}

var fieldCache sync.Map // protoreflect.FullName -> []protoreflect.FieldDescriptor

// fieldsOf are a message's fields by number.
func fieldsOf(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if got, ok := fieldCache.Load(d.FullName()); ok {
		return got.([]protoreflect.FieldDescriptor)
	}
	all := make([]protoreflect.FieldDescriptor, d.Fields().Len())
	for i := range all {
		all[i] = d.Fields().Get(i)
	}
	slices.SortFunc(all, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	fieldCache.Store(d.FullName(), all)
	return all
}
