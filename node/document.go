package node

import "github.com/ironring/ironring/api"

// Document is one of the JSON objects in a node's spec.
type Document struct {
	Field string // of api.Node, as the protobuf definition names it
	// Of is where a node holds it. The node must not be nil.
	Of func(*api.Node) *[]byte
}

// Documents are all of them, in the order in which people are shown them.
var Documents = []Document{
	{"driver_info", func(n *api.Node) *[]byte { return &n.DriverInfo }},
	{"properties", func(n *api.Node) *[]byte { return &n.Properties }},
	{"extra", func(n *api.Node) *[]byte { return &n.Extra }},
	{"instance_info", func(n *api.Node) *[]byte { return &n.InstanceInfo }},
}

// DocumentOf is where a node holds the document of that name; nil when the
// field is no document.
func DocumentOf(n *api.Node, field string) *[]byte {
	for _, d := range Documents {
		if d.Field == field {
			return d.Of(n)
		}
	}
	return nil
}

// Label is what people call a node: its name, or its id where it has none.
func Label(n *api.Node) string {
	if n.GetName() != "" {
		return n.GetName()
	}
	return n.GetId()
}
