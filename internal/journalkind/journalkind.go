// Package journalkind names what a journal event can be about: those who write
// events, who read them and who ask for some of them say it alike.
package journalkind

// The kinds of api.JournalEvent.
const (
	DHCP  = "dhcp"
	TFTP  = "tftp"
	HTTP  = "http"
	Agent = "agent" // enrolment, streams
	Log   = "log"   // a line that the agent logged
	BMC   = "bmc"
	Step  = "step"
)

// All kinds, in the order in which people are shown them.
var All = []string{DHCP, TFTP, HTTP, Agent, Log, BMC, Step}

// Boot are the kinds that tell how a machine booted.
var Boot = []string{DHCP, TFTP, HTTP, Agent}
