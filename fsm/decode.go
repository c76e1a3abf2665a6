package fsm

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ironring/ironring/api"
)

// Bounds of what goes through the log.
const (
	MaxCommand = 256 << 10 // bytes of one command
	MaxEntry   = 512 << 10 // bytes of one entry
	maxDepth   = 32        // of nested messages; ours are far flatter
)

// Decode reads an entry and refuses what this build does not understand in
// full: a peer that skipped an unknown operation, field or enumeration value
// would diverge from those that know it. Whoever proposes calls it before, so
// that no entry is committed that stops the peers.
func Decode(entry []byte) (*api.Entry, error) {
	e := &api.Entry{}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(entry, e); err != nil {
		return nil, fmt.Errorf("cannot decode an entry of %d bytes: %w", len(entry), err)
	}
	if err := known(e.ProtoReflect()); err != nil {
		return nil, fmt.Errorf("an entry of a newer version, upgrade this peer: %w", err)
	}
	return e, nil
}

// known refuses unknown fields and enumeration values, at any depth.
func known(m protoreflect.Message) error {
	if u := m.GetUnknown(); len(u) > 0 {
		return fmt.Errorf("unknown field in %s", m.Descriptor().FullName())
	}
	t := telling(m.Descriptor())
	for _, o := range t.oneofs {
		if fd := m.WhichOneof(o); fd != nil {
			if err := knownField(m, fd); err != nil {
				return err
			}
		}
	}
	for _, fd := range t.fields {
		if m.Has(fd) {
			if err := knownField(m, fd); err != nil {
				return err
			}
		}
	}
	return nil
}

func knownField(m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
	switch {
	case fd.IsMap():
		return fmt.Errorf("%s is a map, which the log does not use", fd.FullName())
	case !fd.IsList():
		return knownValue(fd, m.Get(fd))
	}
	list := m.Get(fd).List()
	for i := range list.Len() {
		if err := knownValue(fd, list.Get(i)); err != nil {
			return err
		}
	}
	return nil
}

// shape is where something unknown may be in a message: in messages and
// enumerations. Of a oneof at most one field is set: it is asked which.
type shape struct {
	oneofs []protoreflect.OneofDescriptor
	fields []protoreflect.FieldDescriptor
}

var shapes sync.Map // protoreflect.MessageDescriptor -> *shape

func telling(d protoreflect.MessageDescriptor) *shape {
	if got, ok := shapes.Load(d); ok {
		return got.(*shape)
	}
	s := &shape{}
	for i := range d.Oneofs().Len() {
		s.oneofs = append(s.oneofs, d.Oneofs().Get(i))
	}
	for i := range d.Fields().Len() {
		switch fd := d.Fields().Get(i); {
		case fd.ContainingOneof() != nil:
		case fd.Kind() == protoreflect.MessageKind, fd.Kind() == protoreflect.EnumKind:
			s.fields = append(s.fields, fd)
		}
	}
	shapes.Store(d, s)
	return s
}

func knownValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return known(v.Message())
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByNumber(v.Enum()) == nil {
			return fmt.Errorf("unknown value %d of %s", v.Enum(), fd.FullName())
		}
	}
	return nil
}
