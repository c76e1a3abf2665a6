package node

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// filled is a node in which every field has a value.
func filled() *api.Node {
	n := &api.Node{}
	m := n.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		switch fd.Kind() {
		case protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString(string(fd.Name())))
		case protoreflect.BytesKind:
			m.Set(fd, protoreflect.ValueOfBytes([]byte(fd.Name())))
		case protoreflect.BoolKind:
			m.Set(fd, protoreflect.ValueOfBool(true))
		case protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(1))
		case protoreflect.Uint64Kind:
			m.Set(fd, protoreflect.ValueOfUint64(7))
		case protoreflect.Int64Kind:
			m.Set(fd, protoreflect.ValueOfInt64(7))
		case protoreflect.MessageKind:
			m.Mutable(fd)
		}
	}
	return n
}

func TestFieldLists(t *testing.T) {
	fields := (&api.Node{}).ProtoReflect().Descriptor().Fields()
	for f := range copiers {
		if fields.ByName(protoreflect.Name(f)) == nil {
			t.Errorf("api.Node has no field %q", f)
		}
		if slices.Contains(SpecFields, f) == slices.Contains(FlowFields, f) {
			t.Errorf("%q must be in one of SpecFields and FlowFields", f)
		}
	}
	if len(copiers) != len(SpecFields)+len(FlowFields) {
		t.Error("SpecFields or FlowFields has a field that cannot be copied")
	}
	for _, f := range ObserveFields {
		if !slices.Contains(FlowFields, f) {
			t.Errorf("%q is observed but no flow field", f)
		}
	}
	for _, f := range AnytimeFields {
		if !slices.Contains(SpecFields, f) {
			t.Errorf("%q is no spec field", f)
		}
	}
}

// Each field is copied, and only that field, in both directions.
func TestApplyCopiesExactlyOneField(t *testing.T) {
	full := filled()
	fields := full.ProtoReflect().Descriptor().Fields()
	for f := range copiers {
		fd := fields.ByName(protoreflect.Name(f))
		dst := &api.Node{}
		if err := Apply(dst, []string{f}, full); err != nil {
			t.Fatal(err)
		}
		want := &api.Node{}
		want.ProtoReflect().Set(fd, full.ProtoReflect().Get(fd))
		if !proto.Equal(dst, want) {
			t.Errorf("copy of %s: got %v", f, dst)
		}
		dst = filled()
		if err := Apply(dst, []string{f}, &api.Node{}); err != nil {
			t.Fatal(err)
		}
		want = filled()
		want.ProtoReflect().Clear(fd)
		if !proto.Equal(dst, want) {
			t.Errorf("clear of %s: got %v", f, dst)
		}
	}
}

func TestApplySharesNothing(t *testing.T) {
	src := filled()
	dst := &api.Node{}
	if err := Apply(dst, append(slices.Clone(SpecFields), FlowFields...), src); err != nil {
		t.Fatal(err)
	}
	src.Boot.Nonce, src.Extra[0] = "changed", 'X'
	if dst.Boot.Nonce != "" || string(dst.Extra) != "extra" {
		t.Error("dst shares memory with src")
	}
	if err := Apply(dst, SpecFields, nil); err != nil || dst.Name != "" {
		t.Errorf("nil src: %q, %v", dst.Name, err)
	}
}

func TestApplyRefusesUnknownFields(t *testing.T) {
	for _, f := range []string{"", "id", "rev", "state", "agent", "assigned", "Name"} {
		dst := &api.Node{Name: "old"}
		err := Apply(dst, []string{"name", f}, &api.Node{Name: "new"})
		if !errors.Is(err, errs.Invalid) || dst.Name != "old" {
			t.Errorf("%q: %v, name %q", f, err, dst.Name)
		}
	}
}

func TestCheckFields(t *testing.T) {
	if err := CheckFields(nil, SpecFields); !errors.Is(err, errs.Invalid) {
		t.Errorf("no fields: %v", err)
	}
	if err := CheckFields([]string{"name", "boot"}, SpecFields); !errors.Is(err, errs.Invalid) || errs.SubjectOf(err) != "boot" {
		t.Errorf("boot: %v", err)
	}
	if err := CheckFields([]string{"name"}, SpecFields); err != nil {
		t.Error(err)
	}
}
