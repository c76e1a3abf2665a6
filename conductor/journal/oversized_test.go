package journal

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

// An event of any size, of this peer or another one, takes no more than a
// frame, and those after it are read.
func TestOversizedEvents(t *testing.T) {
	j := open(t, t.TempDir(), nil)
	start(t, j)
	huge := strings.Repeat("x", 10<<20)
	big := log(huge)
	big.Kind, big.Stage, big.Mac, big.BootNonce, big.CmdId = huge, huge, huge, huge, huge
	theirs := log(huge)
	theirs.Peer, theirs.Seq, theirs.AtMs = huge, 1, 1
	j.Append(big)
	j.Store(theirs)
	j.Append(&api.JournalEvent{NodeId: huge, Text: "nobody's"})
	j.Append(log("next"))
	got := texts(t, j)
	if len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	for _, s := range got {
		if len(s) > maxText {
			t.Errorf("a text of %d bytes", len(s))
		}
	}
	if got[0] != "next" && got[2] != "next" {
		t.Errorf("the last event is %.20q", got[2])
	}
}
