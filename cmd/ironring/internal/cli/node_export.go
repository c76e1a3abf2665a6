package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// outputs is the annotation with the formats of a command that has others than
// table and json.
const outputs = "outputs"

func newNodeExportCmd(f *Factory) *cobra.Command {
	var expr, pattern string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write nodes as a file that apply takes",
		Long: `Write nodes to standard output as a file that "ironring node apply" takes: YAML,
CSV with -o csv or JSON with -o json. The file names the cluster that it is from.

Secrets are referred to: where the file is applied to this cluster again they stay
what they are, and another one needs them where the references say. --secrets has
the references made as file:PATH or env:NAME, in which {node} is the name of the
node, {path} the place of the secret, such as driver_info/redfish_password, and
{key} the end of that. Relative paths are beside the file. With "none" secrets are
left out.

` + whereHelp,
		Example: `  ironring node export > fleet.yaml
  ironring node export --where 'group == "rack7"' -o csv > rack7.csv
  ironring node export --secrets 'env:{key}' > fleet.yaml`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{outputs: "yaml,csv,json"},
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			refer, err := newReferring(pattern)
			if err != nil {
				return err
			}
			all, err := allNodes(ctx, c, &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}})
			if err != nil {
				return err
			}
			ports, err := c.ListPorts(ctx, &api.ListPortsRequest{Read: &api.ReadOptions{Linearizable: true}})
			if err != nil {
				return err
			}
			version, err := c.Version(ctx, &api.VersionRequest{})
			if err != nil {
				return err
			}
			nodes, _, err := matching(ctx, expr, all.GetNodes())
			if err != nil {
				return err
			}
			slices.SortFunc(nodes, func(a, b *api.Node) int {
				return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetId(), b.GetId()))
			})
			rows, err := exported(nodes, ports.GetPorts(), refer)
			if err != nil {
				return err
			}
			if refer.left > 0 && pattern != leftOutSecrets {
				fmt.Fprintf(f.Err, "%d secrets that no reference can stand for were left out\n", refer.left)
			}
			switch f.output {
			case "csv":
				return writeCSV(f.Out, version.GetClusterId(), rows)
			case "json":
				return f.encode(map[string]any{clusterKey: version.GetClusterId(), "nodes": append([]map[string]any{}, rows...)})
			}
			return writeYAML(f.Out, version.GetClusterId(), rows)
		}),
	}
	cmd.Flags().StringVar(&expr, "where", "", "only the nodes that `EXPR` means")
	cmd.Flags().StringVar(&pattern, "secrets", "file:secrets/{node}/{path}", "refer to secrets by this `PATTERN`")
	return cmd
}

// exported are nodes as entries of a file: keys of fileKeys to values. What is
// at its default is left out.
func exported(nodes []*api.Node, ports []*api.Port, refer *referring) ([]map[string]any, error) {
	by := map[string][]any{}
	var out []map[string]any
	mine := map[string]bool{}
	for _, n := range nodes {
		mine[n.GetId()] = true
	}
	for _, p := range ports {
		if !mine[p.GetNodeId()] {
			continue
		}
		row, err := exportPort(p, refer)
		if err != nil {
			return nil, err
		}
		by[p.GetNodeId()] = append(by[p.GetNodeId()], row)
	}
	for _, n := range nodes {
		doc, err := toJSON(n)
		if err != nil {
			return nil, err
		}
		all := doc.(map[string]any)
		row := map[string]any{"id": n.GetId(), "ports": by[n.GetId()]}
		if row["ports"] == nil || len(by[n.GetId()]) == 0 {
			row["ports"] = []any{}
		}
		for key, field := range fileFields {
			if v := all[field]; v != "" && v != nil {
				row[key] = v
			}
		}
		for _, d := range node.Documents {
			v, _ := jsonValue(string(*d.Of(n)))
			stored, _ := v.(map[string]any)
			if row[d.Field], _, err = refer.value(node.Label(n), []string{d.Field}, stored); err != nil {
				return nil, err
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// exportPort is a port as an entry has it. Secrets of ports are for no file.
func exportPort(p *api.Port, refer *referring) (any, error) {
	v, _ := jsonValue(string(p.GetExtra()))
	stored, _ := v.(map[string]any)
	none := &referring{}
	kept, _, err := none.value(p.GetNodeId(), []string{"extra"}, stored)
	if err != nil {
		return nil, err
	}
	refer.left += none.left
	extra := kept.(map[string]any)
	if p.GetPxeEnabled() && p.GetPhysicalNetwork() == "" && len(extra) == 0 {
		return p.GetAddress(), nil
	}
	out := map[string]any{"address": p.GetAddress(), "pxe_enabled": p.GetPxeEnabled()}
	if p.GetPhysicalNetwork() != "" {
		out["physical_network"] = p.GetPhysicalNetwork()
	}
	if len(extra) > 0 {
		out["extra"] = extra
	}
	return out, nil
}

// writeYAML writes rows so that every reader of YAML takes them alike: texts
// that could be anything else stand in quotation marks.
func writeYAML(w io.Writer, cluster string, rows []map[string]any) error {
	var b bytes.Buffer
	b.WriteString(clusterKey + ": " + yamlText(cluster) + "\n")
	if len(rows) == 0 {
		b.WriteString("nodes: []\n")
	} else {
		b.WriteString("nodes:\n")
	}
	for _, row := range rows {
		lead := "  - "
		for _, key := range fileKeys() {
			v, ok := row[key]
			if !ok {
				continue
			}
			b.WriteString(lead + key + ":")
			yamlValue(&b, v, 6)
			lead = "    "
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// yamlValue writes what stands behind "key:" or "-", with its line break.
func yamlValue(b *bytes.Buffer, v any, indent int) {
	lead := strings.Repeat(" ", indent)
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteByte('\n')
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b.WriteString(lead + yamlText(k) + ":")
			yamlValue(b, v[k], indent+2)
		}
	case []any:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteByte('\n')
		for _, item := range v {
			switch item.(type) {
			case map[string]any, []any: // inside of lists the flow style, which is JSON
				b.WriteString(lead + "- " + jsonText(item) + "\n")
			default:
				b.WriteString(lead + "-")
				yamlValue(b, item, indent+2)
			}
		}
	case string:
		b.WriteString(" " + yamlText(v) + "\n")
	case reference:
		if v.Env != "" {
			b.WriteString(" {env: " + yamlText(v.Env) + "}\n")
		} else {
			b.WriteString(" {file: " + yamlText(v.File) + "}\n")
		}
	default:
		b.WriteString(" " + jsonText(v) + "\n")
	}
}

var (
	plainYAML    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./@+-]*$`)
	reservedYAML = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan|inf)$`)
)

func yamlText(s string) string {
	if plainYAML.MatchString(s) && !reservedYAML.MatchString(s) {
		return s
	}
	return jsonText(s)
}

// jsonText is a value as JSON on one line.
func jsonText(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return "null"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// writeCSV writes rows with a column for each path that any of them has.
func writeCSV(w io.Writer, cluster string, rows []map[string]any) error {
	cells := make([]map[string]string, len(rows))
	columns := map[string]bool{}
	for i, row := range rows {
		cells[i] = map[string]string{clusterKey: cluster}
		for _, key := range fileKeys() {
			doc, isDoc := row[key].(map[string]any)
			switch v := row[key].(type) {
			case nil:
			case []any:
				cells[i][key] = csvPortsText(v)
			case string:
				cells[i][key] = v
			default:
				if isDoc {
					if !namable(doc) {
						return errs.New(errs.Unsupported, "%s of node %v has a key that no CSV column can name: export it as YAML", key, cmp.Or(row["name"], row["id"]))
					}
					csvDocument(cells[i], key, doc)
				} else {
					cells[i][key] = fmt.Sprint(v)
				}
			}
		}
		for c := range cells[i] {
			columns[c] = true
		}
	}
	header := csvHeader(columns)
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return err
	}
	for _, row := range cells {
		line := make([]string, len(header))
		for i, c := range header {
			line[i] = row[c]
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// csvHeader orders columns as fileKeys does, the paths of a document sorted.
func csvHeader(columns map[string]bool) []string {
	order := append([]string{clusterKey}, fileKeys()...)
	place := func(column string) int {
		field, _, _ := strings.Cut(column, "/")
		return slices.Index(order, field)
	}
	columns["name"] = true
	return slices.SortedFunc(maps.Keys(columns), func(a, b string) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
	})
}

// csvDocument spreads an object over cells. An object with keys that no path
// can name is one cell.
func csvDocument(row map[string]string, path string, m map[string]any) {
	for k, v := range m {
		at := path + "/" + k
		inner, isMap := v.(map[string]any)
		text, isText := v.(string)
		ref, isRef := v.(reference)
		switch {
		case isRef && ref.Env != "":
			row[at] = "env:" + ref.Env
		case isRef:
			row[at] = "file:" + ref.File
		case isMap && len(inner) > 0 && namable(inner):
			csvDocument(row, at, inner)
		case isText && text != "" && !json.Valid([]byte(text)) && !strings.Contains(text, "\r"):
			row[at] = text
		default:
			row[at] = jsonText(v)
		}
	}
}

// namable reports whether paths can name all keys of an object.
func namable(m map[string]any) bool {
	for k := range m {
		if k == "" || strings.Contains(k, "/") || strings.TrimSpace(k) != k {
			return false
		}
	}
	return true
}

func csvPortsText(ports []any) string {
	var macs []string
	for _, p := range ports {
		mac, ok := p.(string)
		if !ok {
			return jsonText(ports)
		}
		macs = append(macs, mac)
	}
	if len(macs) == 0 {
		return "[]"
	}
	return strings.Join(macs, " ")
}
