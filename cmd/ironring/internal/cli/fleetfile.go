package cli

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// A fleet file says how nodes should be: YAML with a list `nodes`, or CSV with
// a line for each. docs/fleet.md is its reference.

// maxFleetFile bounds a file: some ten thousand nodes.
const maxFleetFile = 32 << 20

// entry is one node of a fleet file.
type entry struct {
	line int
	dir  string // of the file, for references
	// cluster is the one that the file was exported from, "" when it does not say.
	cluster string
	id      string
	name    string
	// fields are the spec fields that the file gives, by api.Node's names, but
	// documents; values are strings and booleans.
	fields map[string]any
	// documents are the documents that the file gives: trees of maps, lists,
	// strings, json.Number, booleans, nil and references.
	documents map[string]map[string]any
	ports     []*api.Port
	hasPorts  bool
	lines     map[string]int // of fields, documents' keys and MACs, where known
}

func (e *entry) label() string {
	if e.name != "" {
		return e.name
	}
	return e.id
}

// at is the line of a path, or of the nearest one above it that is known.
func (e *entry) at(path string) int {
	for path != "" {
		if l := e.lines[path]; l > 0 {
			return l
		}
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	return e.line
}

// fileFields are the keys of an entry and the spec fields that they stand for.
var fileFields = map[string]string{
	"name": "name", "driver": "driver", "group": "conductor_group", "resource_class": "resource_class", "description": "description",
	"enforce_power": "enforce_power", "protected": "protected", "maintenance": "maintenance", "maintenance_reason": "maintenance_reason",
}

var boolFields = []string{"enforce_power", "protected", "maintenance"}

// clusterKey says from which cluster a file was exported: in YAML beside
// `nodes`, in CSV a column.
const clusterKey = "cluster"

// fileKeys are all keys that an entry may have, in the order of exports.
func fileKeys() []string {
	keys := []string{"name", "id", "driver", "group", "resource_class", "description", "protected", "enforce_power", "maintenance", "maintenance_reason"}
	for _, d := range node.Documents {
		keys = append(keys, d.Field)
	}
	return append(keys, "ports")
}

// readFleet reads a fleet file and checks what can be checked without asking
// the cluster.
func (f *Factory) readFleet(path string) ([]*entry, error) {
	data, err := f.readFile(path)
	if err != nil {
		return nil, err
	}
	p := &problems{path: path}
	var entries []*entry
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".yaml", ".yml", ".json":
		entries = parseYAML(data, p)
	case ".csv":
		entries = parseCSV(data, p)
	default:
		return nil, errs.New(errs.Invalid, "%s: the name must end in .yaml, .yml, .json or .csv", path)
	}
	for _, e := range entries {
		e.dir = filepath.Dir(path)
		e.check(p)
	}
	checkTwice(entries, p)
	if err := p.err(); err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errs.New(errs.Invalid, "%s holds no nodes", path)
	}
	return entries, nil
}

func (f *Factory) readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	if info.Size() > maxFleetFile {
		return nil, errs.New(errs.Invalid, "%s has %d bytes, more than %d", path, info.Size(), maxFleetFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	return data, nil
}

// set gives an entry one of its keys; value is what YAML or CSV made of it.
func (e *entry) set(key string, value any, line int, p *problems) {
	e.lines[key] = line
	switch {
	case key == clusterKey:
		e.cluster, _ = value.(string)
		if e.cluster == "" {
			p.add(line, "%s: must be the id of a cluster, a text", clusterKey)
		}
	case key == "id":
		e.id, _ = value.(string)
		if !node.ValidID(e.id) {
			p.add(line, "id: not a UUID in lower case")
		}
	case node.DocumentOf(&api.Node{}, key) != nil:
		doc, ok := value.(map[string]any)
		if !ok && value != nil {
			p.add(line, "%s: must be a mapping of keys to values", key)
			return
		}
		if doc == nil {
			doc = map[string]any{}
		}
		e.documents[key] = e.references(nil, doc, key, p).(map[string]any)
	case key == "ports":
		e.setPorts(value, line, p)
	case fileFields[key] != "" && slices.Contains(boolFields, key):
		v, ok := value.(bool)
		if !ok {
			p.add(line, "%s: must be true or false", key)
			return
		}
		e.fields[fileFields[key]] = v
	case fileFields[key] != "":
		v, ok := value.(string)
		if !ok && value != nil {
			p.add(line, "%s: must be a text: put it into quotation marks", key)
			return
		}
		e.fields[fileFields[key]] = v
		if key == "name" {
			e.name = v
		}
	default:
		p.add(line, "unknown key %q; there are %s", key, strings.Join(fileKeys(), ", "))
	}
}

func (e *entry) setPorts(value any, line int, p *problems) {
	e.hasPorts = true
	list, ok := value.([]any)
	if !ok && value != nil {
		p.add(line, "ports: must be a list")
		return
	}
	for _, item := range list {
		port, err := filePort(item)
		if err != nil {
			p.add(line, "ports: %v", err)
			continue
		}
		e.ports = append(e.ports, port)
	}
}

// filePort is a port of a file: a MAC address, or a mapping with more.
func filePort(item any) (*api.Port, error) {
	port := &api.Port{PxeEnabled: true}
	switch v := item.(type) {
	case string:
		port.Address = v
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			var ok bool
			switch key {
			case "address":
				port.Address, ok = v[key].(string)
			case "pxe_enabled":
				port.PxeEnabled, ok = v[key].(bool)
			case "physical_network":
				port.PhysicalNetwork, ok = v[key].(string)
			case "extra":
				var doc map[string]any
				if doc, ok = v[key].(map[string]any); ok {
					if holdsSecret(nil, doc) {
						return nil, errs.New(errs.Invalid, "extra of %v: secrets of ports cannot stand in a file", v["address"])
					}
					port.Extra, _ = json.Marshal(doc) // came from a file as JSON's types
				}
			default:
				return nil, errs.New(errs.Invalid, "unknown key %q; there are address, pxe_enabled, physical_network, extra", key)
			}
			if !ok {
				return nil, errs.New(errs.Invalid, "%s: not a value for it", key)
			}
		}
	default:
		return nil, errs.New(errs.Invalid, "must be MAC addresses, or mappings with address")
	}
	if err := node.NormalizePort(port); err != nil {
		return nil, err
	}
	if path := seal.MaskedPath(port.GetExtra()); path != "" {
		return nil, errs.New(errs.Invalid, "extra/%s of %s is %s, which is shown in the place of a secret: leave the key out", path, port.GetAddress(), seal.Mask)
	}
	whole := proto.CloneOf(port)
	whole.Id, whole.NodeId = nobody, nobody
	return port, node.CheckPort(whole)
}

// apply puts what the file gives into a node; documents replace those of the
// node. secret reads references.
func (e *entry) apply(n *api.Node, secret func(reference) (string, error)) error {
	for field, v := range e.fields {
		src := &api.Node{}
		m := src.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(v))
		if err := node.Apply(n, []string{field}, src); err != nil {
			return err
		}
	}
	for field, doc := range e.documents {
		plain, err := resolved(doc, secret)
		if err != nil {
			return errs.About(errs.Invalid, field, "%s: %w", field, err)
		}
		raw, err := json.Marshal(plain)
		if err != nil {
			return err
		}
		*node.DocumentOf(n, field) = raw
	}
	return nil
}
