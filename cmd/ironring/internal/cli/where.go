package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Bounds of an expression: what a person types, not a program.
const (
	maxWhere  = 4096
	whereCost = 100_000 // of one node, in CEL's units
)

const whereHelp = `--where chooses nodes by an expression in CEL over id, name, state, target_state,
driver, group, resource_class, description, owner, power ("on", "off", "unknown"),
maintenance, maintenance_reason, protected, last_error, fault, and the documents
properties, extra, instance_info, driver_info (secrets are not shown), such as
  --where 'state == "available" && properties.rack == "r7"'
  --where 'name.startsWith("web-") && !maintenance && properties.memory_mb >= 65536'
A node that lacks a key which the expression needs is not meant; has(extra.key)
asks for a key.`

// whereFields are the variables of an expression besides the documents.
var whereFields = map[string]struct {
	kind *cel.Type
	of   func(*api.Node) any
}{
	"id":                 {cel.StringType, func(n *api.Node) any { return n.GetId() }},
	"name":               {cel.StringType, func(n *api.Node) any { return n.GetName() }},
	"state":              {cel.StringType, func(n *api.Node) any { return node.StateName(n.GetState()) }},
	"target_state":       {cel.StringType, func(n *api.Node) any { return node.StateName(n.GetTargetState()) }},
	"driver":             {cel.StringType, func(n *api.Node) any { return n.GetDriver() }},
	"group":              {cel.StringType, func(n *api.Node) any { return n.GetConductorGroup() }},
	"resource_class":     {cel.StringType, func(n *api.Node) any { return n.GetResourceClass() }},
	"description":        {cel.StringType, func(n *api.Node) any { return n.GetDescription() }},
	"owner":              {cel.StringType, func(n *api.Node) any { return n.GetAssigned() }},
	"power":              {cel.StringType, func(n *api.Node) any { return powerText(n) }},
	"maintenance":        {cel.BoolType, func(n *api.Node) any { return n.GetMaintenance() }},
	"maintenance_reason": {cel.StringType, func(n *api.Node) any { return n.GetMaintenanceReason() }},
	"protected":          {cel.BoolType, func(n *api.Node) any { return n.GetProtected() }},
	"last_error":         {cel.StringType, func(n *api.Node) any { return n.GetLastError() }},
	"fault":              {cel.StringType, func(n *api.Node) any { return n.GetFault() }},
}

// where is a compiled expression that chooses nodes.
type where struct{ program cel.Program }

func parseWhere(expr string) (*where, error) {
	if len(expr) > maxWhere {
		return nil, errs.About(errs.Invalid, "where", "--where: the expression has %d characters, more than %d", len(expr), maxWhere)
	}
	opts := []cel.EnvOption{cel.CrossTypeNumericComparisons(true)}
	for _, name := range slices.Sorted(maps.Keys(whereFields)) {
		opts = append(opts, cel.Variable(name, whereFields[name].kind))
	}
	for _, d := range node.Documents {
		opts = append(opts, cel.Variable(d.Field, cel.MapType(cel.StringType, cel.DynType)))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("expressions: %w", err)
	}
	ast, issues := env.Compile(expr)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, errs.About(errs.Invalid, "where", "--where: at character %d: %s; the command's --help lists what can be used",
			first.Location.Column()+1, oneLine(first.Message))
	}
	if kind := ast.OutputType(); !kind.IsExactType(cel.BoolType) && !kind.IsExactType(cel.DynType) {
		return nil, errs.About(errs.Invalid, "where", "--where: the expression gives a value of type %s, not true or false: write a comparison", kind)
	}
	program, err := env.Program(ast, cel.CostLimit(whereCost), cel.InterruptCheckFrequency(100))
	if err != nil {
		return nil, errs.About(errs.Invalid, "where", "--where: %w", err)
	}
	return &where{program}, nil
}

// matches reports whether a node is meant. A key that the node lacks is no
// match; any other failure is the expression's fault and ends the command.
func (w *where) matches(ctx context.Context, n *api.Node) (bool, error) {
	vars := make(map[string]any, len(whereFields)+len(node.Documents))
	for name, f := range whereFields {
		vars[name] = f.of(n)
	}
	for _, d := range node.Documents {
		vars[d.Field] = numbers(*d.Of(n))
	}
	out, _, err := w.program.ContextEval(ctx, vars)
	switch {
	case err != nil && strings.Contains(err.Error(), "no such key"):
		return false, nil
	case err != nil:
		return false, errs.About(errs.Invalid, "where", "--where: of node %s: %s", node.Label(n), oneLine(err.Error()))
	}
	match, ok := out.Value().(bool)
	if !ok {
		return false, errs.About(errs.Invalid, "where", "--where: of node %s the expression gives %v, not true or false", node.Label(n), out.Value())
	}
	return match, nil
}

// numbers is a document as CEL wants it: whole numbers stay whole. What is no
// object has no keys.
func numbers(doc []byte) map[string]any {
	out := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if dec.Decode(&out) != nil {
		return map[string]any{}
	}
	for k, v := range out {
		out[k] = number(v)
	}
	return out
}

func number(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64() // out of range is infinite: it compares as it should
		return f
	case map[string]any:
		for k := range v {
			v[k] = number(v[k])
		}
	case []any:
		for i := range v {
			v[i] = number(v[i])
		}
	}
	return v
}

// allNodes reads every node that req asks for.
func allNodes(ctx context.Context, c *client.Client, req *api.ListNodesRequest) (*api.ListNodesReply, error) {
	all := &api.ListNodesReply{}
	for marker := ""; ; {
		req.Marker = marker
		rep, err := c.ListNodes(ctx, req)
		if err != nil {
			return nil, err
		}
		all.Nodes = append(all.Nodes, rep.GetNodes()...)
		all.Index, all.Stale = rep.GetIndex(), all.Stale || rep.GetStale()
		if marker = rep.GetNext(); marker == "" {
			return all, nil
		}
	}
}

// labels are what people call nodes, by id; the id itself where a node has no
// name or is gone. Without want nothing is read.
func labels(ctx context.Context, c *client.Client, want bool) (func(id string) string, error) {
	by := map[string]string{}
	if want {
		all, err := allNodes(ctx, c, &api.ListNodesRequest{})
		if err != nil {
			return nil, err
		}
		for _, n := range all.GetNodes() {
			by[n.GetId()] = node.Label(n)
		}
	}
	return func(id string) string { return cmp.Or(by[id], id) }, nil
}

// matching keeps the nodes that an expression means; all of them without one.
func matching(ctx context.Context, expr string, nodes []*api.Node) ([]*api.Node, *where, error) {
	if expr == "" {
		return nodes, nil, nil
	}
	w, err := parseWhere(expr)
	if err != nil {
		return nil, nil, err
	}
	var out []*api.Node
	for _, n := range nodes {
		ok, err := w.matches(ctx, n)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			out = append(out, n)
		}
	}
	return out, w, nil
}
