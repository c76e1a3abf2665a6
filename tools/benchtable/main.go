// Command benchtable ends `make bench`: it reads what the benchmarks printed and
// the goals in docs/testing.md, and prints one table of both.
//
//	benchtable [-check] [-bench REGEXP] GOALS RESULTS...
//
// Goals are the rows `| benchmark | figure | goal |` behind the heading "Goals" of
// the file GOALS: the document is the only place where they stand. A goal whose
// figure is not there was "not run", with the reason that the benchmark gave. With
// -check the exit code is 1 unless every goal is met, and there is one; -bench
// leaves out the goals of benchmarks that were not asked for, as go test has it: a
// list of alternatives, each with a part for each level of a name.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	check := flag.Bool("check", false, "fail unless every goal is met")
	bench := flag.String("bench", ".", "the `REGEXP` of the benchmarks that were asked for")
	flag.Parse()
	ok, err := run(os.Stdout, *bench, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(2)
	}
	if *check && !ok {
		fmt.Fprintln(os.Stderr, "benchtable: not every goal is met")
		os.Exit(1)
	}
}

// run prints the table; ok when there are goals and every one is met.
func run(w io.Writer, bench string, files []string) (ok bool, err error) {
	if len(files) < 2 {
		return false, fmt.Errorf("a file with goals and the outputs of benchmarks are needed")
	}
	asked, err := parsePattern(bench)
	if err != nil {
		return false, fmt.Errorf("-bench: %w", err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return false, err
	}
	goals, err := parseGoals(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", files[0], err)
	}
	var all results
	for _, name := range files[1:] {
		out, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		all.read(bytes.NewReader(out))
	}
	rows := table(goals, &all, asked)
	ok = true
	checked := 0
	for _, r := range rows {
		ok = ok && r.fine()
		if r.goal != "" {
			checked++
		}
	}
	if err := print(w, rows); err != nil || checked > 0 {
		return ok, err
	}
	_, err = fmt.Fprintf(w, "no goal is of a benchmark that matches %q\n", bench)
	return false, err
}
