package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// goal is what a figure of a benchmark should be.
type goal struct {
	bench, figure string
	most          bool // the figure should be at most this, else at least
	value         float64
}

func (g goal) String() string {
	sign := ">="
	if g.most {
		sign = "<="
	}
	return fmt.Sprintf("%s %s %s", g.figure, sign, number(g.value))
}

var goalRow = regexp.MustCompile("^\\| *`([^`]+)` *\\| *`([^`]+)` *\\| *(at least|at most) +([0-9.]+) *(?:\\||[^0-9.|][^|]*\\|)")

// parseGoals reads the rows behind the heading "Goals". A row that is not
// understood is an error: a goal must not get lost by a slip of the pen.
func parseGoals(text []byte) ([]goal, error) {
	_, section, found := strings.Cut(string(text), "# Goals\n")
	if !found {
		return nil, errors.New("has no heading Goals")
	}
	section, _, _ = strings.Cut(section, "\n#")
	var out []goal
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		m := goalRow.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("not a goal: %s", line)
		}
		value, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return nil, fmt.Errorf("not a goal: %s", line)
		}
		out = append(out, goal{m[1], m[2], m[3] == "at most", value})
	}
	if len(out) == 0 {
		return nil, errors.New("has no goals")
	}
	return out, nil
}

// results are the figures of benchmarks by name and unit.
type results struct {
	order   []string
	figures map[string]map[string]float64
	why     map[string]string // of what was not run
}

var (
	benchLine  = regexp.MustCompile(`^Benchmark(\S+?)(?:-[0-9]+)?\s+[0-9]+\s+(.*)$`)
	notRunLine = regexp.MustCompile(`NOT RUN Benchmark(\S+): (.*)$`)
)

// read takes what `go test -bench` prints. What is no figure is passed over.
func (r *results) read(in io.Reader) {
	if r.figures == nil {
		r.figures, r.why = map[string]map[string]float64{}, map[string]string{}
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := notRunLine.FindStringSubmatch(lines.Text()); m != nil {
			r.why[m[1]] = m[2]
			continue
		}
		m := benchLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if r.figures[m[1]] == nil {
			r.order = append(r.order, m[1])
			r.figures[m[1]] = map[string]float64{}
		}
		words := strings.Fields(m[2])
		for i := 0; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				r.figures[m[1]][words[i+1]] = v
			}
		}
	}
}

// reason says why a benchmark, or the one that it is part of, has no figure.
func (r *results) reason(bench string) string {
	parent, _, _ := strings.Cut(bench, "/")
	return cmp.Or(r.why[bench], r.why[parent], "it ended without one")
}

// row is a line of the table.
type row struct {
	name, ours, ceiling, ratio, goal, verdict string
}

func (r row) fine() bool { return r.goal == "" || r.verdict == "met" }

const ratio = "%ofceiling"

// table has a row for each goal and for each benchmark that has none.
func table(goals []goal, all *results, asked pattern) []row {
	var out []row
	has := map[string]bool{}
	for _, g := range goals {
		has[g.bench] = true
		if !asked.match("Benchmark" + g.bench) {
			continue
		}
		r := row{name: g.bench, goal: g.String()}
		figures := all.figures[g.bench]
		if g.figure == ratio {
			r.fill(figures)
		}
		switch v, ok := figures[g.figure]; {
		case !ok:
			r.verdict = "not run: " + all.reason(g.bench)
		case g.most && v > g.value, !g.most && v < g.value:
			r.verdict = "MISSED"
		default:
			r.verdict = "met"
		}
		if v, ok := figures[g.figure]; ok && g.figure != ratio {
			r.ours = number(v) + " " + g.figure
		}
		out = append(out, r)
	}
	for _, name := range all.order {
		if f := all.figures[name]; !has[name] && len(f) > 0 {
			r := row{name: name}
			r.fill(f)
			if r.ours != "" {
				out = append(out, r)
			}
		}
	}
	return out
}

// fill takes the figures of a comparison.
func (r *row) fill(figures map[string]float64) {
	for unit, v := range figures {
		if rest, ok := strings.CutPrefix(unit, "ours"); ok {
			r.ours = number(v) + " " + strings.TrimLeft(rest, "-")
		}
		if rest, ok := strings.CutPrefix(unit, "ceiling"); ok {
			r.ceiling = number(v) + " " + strings.TrimLeft(rest, "-")
		}
	}
	if v, ok := figures[ratio]; ok {
		r.ratio = number(v) + " %"
	}
}

// number is a figure with three digits or all before the point.
func number(v float64) string {
	if v >= 100 || v == float64(int64(v)) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func print(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tOURS\tCEILING\tRATIO\tGOAL\t")
	for _, r := range rows {
		dash := func(s string) string { return cmp.Or(s, "-") }
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.name, dash(r.ours), dash(r.ceiling), dash(r.ratio), dash(r.goal), r.verdict)
	}
	return t.Flush()
}
