package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goalsText = "# Testing\n\n## Goals\n\nText.\n\n| benchmark | figure | goal |\n|---|---|---|\n" +
	"| `TFTP/clients=1` | `%ofceiling` | at least 100 % |\n" +
	"| `DHCP` | `exchanges/s` | at least 4000 |\n" +
	"| `DHCP` | `p99-ms` | at most 20 ms |\n" +
	"| `WriteImage/raw` | `%ofceiling` | at least 90 |\n\n## Next\n\n| `X` | `y` | at least 1 |\n"

const printed = `goos: linux
pkg: example
BenchmarkTFTP/clients=1-2         	       1	       202.9 %ofceiling	        34.34 ceiling/s	        69.68 ours/s
BenchmarkDHCP-2 	       1	      5021 exchanges/s	        12.50 p50-ms	        PCT p99-ms
BenchmarkNodeRead 	       1	        31.25 %ofceiling	     40000 ceiling/s	     12500 ours/s
ok  	example	43.712s
`

// TestRun: the table, and whether all is met.
func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		out, bench string
		ok         bool
		want       []string
	}{
		"met": {strings.Replace(printed, "PCT", "15.0", 1) + "BenchmarkWriteImage/raw-2  1  95.5 %ofceiling  400.0 ceiling-MB/s  382 ours-MB/s\n", ".", true, []string{
			"TFTP/clients=1 69.7 /s 34.3 /s 203 % %ofceiling >= 100 met",
			"DHCP 5021 exchanges/s - - exchanges/s >= 4000 met",
			"DHCP 15 p99-ms - - p99-ms <= 20 met",
			"WriteImage/raw 382 MB/s 400 MB/s 95.5 % %ofceiling >= 90 met",
			"NodeRead 12500 /s 40000 /s 31.2 % -",
		}},
		"missed and not run": {strings.Replace(printed, "PCT", "20.1", 1) + "    x_test.go:1: NOT RUN BenchmarkWriteImage: a loop device needs root\n", ".", false, []string{
			"DHCP 20.1 p99-ms - - p99-ms <= 20 MISSED",
			"WriteImage/raw - - - %ofceiling >= 90 not run: a loop device needs root",
		}},
		"not asked for":  {strings.Replace(printed, "PCT", "1", 1), "TFTP|DHCP", true, []string{"DHCP 1 p99-ms"}},
		"no ceiling":     {"BenchmarkTFTP/clients=1-2  1  69.68 ours/s\nNOT RUN BenchmarkTFTP/clients=1: no tftpd-hpa\n", "TFTP", false, []string{"TFTP/clients=1 69.7 /s - - %ofceiling >= 100 not run: no tftpd-hpa"}},
		"a part":         {strings.Replace(printed, "PCT", "99", 1), "TFTP/clients=1", true, []string{"TFTP/clients=1 69.7 /s 34.3 /s 203 % %ofceiling >= 100 met"}},
		"a part of one":  {printed, "^BenchmarkDHCP$/sub|TFTP/(clients=1|x)", false, []string{"not run"}},
		"another part":   {printed, "TFTP/clients=50", false, []string{`no goal is of a benchmark that matches "TFTP/clients=50"`}},
		"a slip":         {printed, "Typo", false, []string{`no goal is of a benchmark that matches "Typo"`}},
		"no goal":        {printed, "NodeRead", false, []string{"NodeRead 12500 /s"}},
		"nothing at all": {"FAIL\n", "DHCP", false, []string{"DHCP - - - exchanges/s >= 4000 not run: it ended without one"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := func(name, text string) string {
				p := filepath.Join(dir, name)
				if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			var b strings.Builder
			ok, err := run(&b, c.bench, []string{file("goals", goalsText), file("out", c.out)})
			if err != nil || ok != c.ok {
				t.Errorf("%v %v", ok, err)
			}
			got := strings.Join(strings.Fields(b.String()), " ")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
			}
		})
	}
}

// TestGoals: a row that is not understood is an error, and the document has
// goals for what it says.
func TestGoals(t *testing.T) {
	for _, bad := range []string{"", "## Goals\n", "## Goals\n| `DHCP` | `p99-ms` | 20 |\n", "## Goals\n| `DHCP` | `p99-ms` | at most many |\n", "## Goals\n| `DHCP` | p99-ms | at most 2 |\n"} {
		if got, err := parseGoals([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
	text, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	goals, err := parseGoals(text)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, g := range goals {
		has[g.bench+" "+g.String()] = true
	}
	for _, want := range []string{
		"TFTP/clients=1 %ofceiling >= 100", "TFTP/clients=50 %ofceiling >= 100", "DHCP exchanges/s >= 4000", "DHCP p99-ms <= 20", "HTTPBoot %ofceiling >= 80",
		"BootStorm up >= 300", "BootStorm failed <= 0", "BootStorm retries-of-one <= 1", "BootStorm dhcp-p99-ms <= 200",
		"WriteImage/raw %ofceiling >= 90", "WriteImage/zstd %ofceiling >= 90",
	} {
		if !has[want] {
			t.Errorf("docs/testing.md has no goal %q", want)
		}
	}
}
