package fsm

import (
	"fmt"

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
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			err = fmt.Errorf("%s is a map, which the log does not use", fd.FullName())
		case fd.IsList():
			list := v.List()
			for i := 0; err == nil && i < list.Len(); i++ {
				err = knownValue(fd, list.Get(i))
			}
		default:
			err = knownValue(fd, v)
		}
		return err == nil
	})
	return err
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
