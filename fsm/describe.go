package fsm

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ironring/ironring/api"
)

// describe names an operation as commands.proto does, and what it is about,
// for the audit.
func describe(op *api.Op) (name, subject string) {
	m := op.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().ByName("op"))
	if fd == nil {
		return "", ""
	}
	return string(fd.Name()), clip(subjectOf(m.Get(fd).Message()), maxText)
}

// subjectOf is the first identity that an operation or the record inside it
// carries.
func subjectOf(m protoreflect.Message) string {
	fields := m.Descriptor().Fields()
	for _, name := range []protoreflect.Name{"node_id", "port_id", "lease_id", "id", "name", "network", "digest", "arch", "member_id"} {
		if fd := fields.ByName(name); fd != nil && fd.Kind() == protoreflect.StringKind {
			return m.Get(fd).String()
		}
	}
	for _, name := range []protoreflect.Name{"node", "port", "network", "member", "token", "lease", "inventory", "artifact", "ramdisk"} {
		if fd := fields.ByName(name); fd != nil && fd.Kind() == protoreflect.MessageKind && !fd.IsList() {
			return subjectOf(m.Get(fd).Message())
		}
	}
	return ""
}
