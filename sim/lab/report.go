package lab

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/ironring/ironring/api"
	nodes "github.com/ironring/ironring/node"
)

// Report is what happened in a lab.
type Report struct {
	Peers   int `json:"peers"`
	Nodes   int `json:"nodes"`
	Active  int `json:"active"`
	Failed  int `json:"failed"`
	Killed  int `json:"killed"`  // peers
	Resumed int `json:"resumed"` // nodes that another peer went on with
	// RestartedSteps counts steps that were begun again beyond their policy.
	RestartedSteps  int       `json:"restarted_steps"`
	TakeoverSeconds []float64 `json:"takeover_seconds"` // from the kill to the new lock
	Seconds         float64   `json:"seconds"`

	Rows   []Row `json:"-"`
	Missed bool  `json:"-"` // a peer should have been killed, but no moment was found
}

// Row is one machine.
type Row struct {
	Node      string
	Driver    string // that its BMC is reached by
	State     api.State
	Owner     string
	Takeovers int
	Served    int64 // bytes of the image that it fetched
	Ramdisks  int   // boots of the ramdisk: one for inspect, clean and deploy
	PowerOns  int   // of the last flow
	Problem   string
}

// Well is true when everything went as it should.
func (r *Report) Well() bool {
	return r.Failed == 0 && r.Active == r.Nodes && r.RestartedSteps == 0 && !r.Missed
}

// Print writes the table of what happened.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nNODE\tDRIVER\tSTATE\tOWNER\tTAKEOVERS\tIMAGE FETCHED\tRAMDISK BOOTS\tPOWER-ONS\tPROBLEM")
	for _, row := range r.Rows {
		problem := row.Problem
		if problem == "" {
			problem = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%.1f MiB\t%d\t%d\t%s\n", row.Node, row.Driver, nodes.StateName(row.State), row.Owner, row.Takeovers,
			float64(row.Served)/(1<<20), row.Ramdisks, row.PowerOns, problem)
	}
	fmt.Fprintf(t, "\n%d of %d machines active", r.Active, r.Nodes)
	if r.Killed > 0 {
		fmt.Fprintf(t, "; %d peer killed in the middle, %d deployments went on with another peer, %d steps run twice", r.Killed, r.Resumed, r.RestartedSteps)
	}
	if r.Missed {
		fmt.Fprint(t, "; NO peer was killed: no deployment was seen between 20 and 60 %")
	}
	fmt.Fprintf(t, "; %.1f s\n", r.Seconds)
	return t.Flush()
}

func round(s float64) float64 { return math.Round(s*10) / 10 }
